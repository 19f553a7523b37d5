//! Dialects: how each client says the same thing, and the one model that it is read into.
