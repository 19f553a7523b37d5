//! Both encodings are read as the same request.

use proptest::prelude::*;
use prost::Message;

use super::requests::{log_requests, spellings, trace_requests};
use crate::wire::{Decoded, Encoding, WireError, decode_logs, decode_traces};

/// The bytes of a request without losses. Unlike its values, they are also equal if they contain NaN.
fn whole<T: Message>(decoded: Result<Decoded<T>, WireError>) -> Vec<u8> {
    let decoded = decoded.unwrap();
    assert_eq!((decoded.broken, decoded.repaired), (Vec::new(), 0));
    decoded.request.encode_to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn traces_are_the_same_in_both_encodings(request in trace_requests(), spelling in spellings()) {
        let protobuf = request.encode_to_vec();
        prop_assert_eq!(&whole(decode_traces(Encoding::Protobuf, &protobuf)), &protobuf);
        let json = spelling.traces(&request);
        prop_assert_eq!(&whole(decode_traces(Encoding::Json, json.as_bytes())), &protobuf, "{}", json);
    }

    #[test]
    fn logs_are_the_same_in_both_encodings(request in log_requests(), spelling in spellings()) {
        let protobuf = request.encode_to_vec();
        prop_assert_eq!(&whole(decode_logs(Encoding::Protobuf, &protobuf)), &protobuf);
        let json = spelling.logs(&request);
        prop_assert_eq!(&whole(decode_logs(Encoding::Json, json.as_bytes())), &protobuf, "{}", json);
    }
}
