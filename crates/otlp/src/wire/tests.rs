mod fields;
mod fuzz;
mod json;
mod printer;
mod protobuf;
mod requests;
mod responses;
mod roundtrip;
