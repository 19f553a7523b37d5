//! OTLP as a client of it sees it: tables of requests with what each must be answered.

mod bodies;
mod client;
mod grpc;
mod items;
mod json;
mod logs;
mod requests;
mod transport;
