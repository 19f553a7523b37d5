//! Metrics of all five kinds, without exemplars: the product counts metrics and lists their names.

use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint,
};
use serde::de::MapAccess;

use super::members::{Member, Members};

impl Members for Metric {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"name" => member.text(&mut self.name),
            b"description" => member.text(&mut self.description),
            b"unit" => member.text(&mut self.unit),
            b"metadata" => member.attributes(&mut self.metadata),
            b"gauge" => member.one_of(&mut self.data, Data::Gauge),
            b"sum" => member.one_of(&mut self.data, Data::Sum),
            b"histogram" => member.one_of(&mut self.data, Data::Histogram),
            b"exponentialHistogram" | b"exponential_histogram" => {
                member.one_of(&mut self.data, Data::ExponentialHistogram)
            }
            b"summary" => member.one_of(&mut self.data, Data::Summary),
            _ => member.skip(),
        }
    }
}

impl Members for Gauge {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"dataPoints" | b"data_points" => member.details(&mut self.data_points),
            _ => member.skip(),
        }
    }
}

impl Members for Sum {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"dataPoints" | b"data_points" => member.details(&mut self.data_points),
            b"aggregationTemporality" | b"aggregation_temporality" => {
                member.enumeration(&mut self.aggregation_temporality, temporality)
            }
            b"isMonotonic" | b"is_monotonic" => member.boolean(&mut self.is_monotonic),
            _ => member.skip(),
        }
    }
}

impl Members for Histogram {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"dataPoints" | b"data_points" => member.details(&mut self.data_points),
            b"aggregationTemporality" | b"aggregation_temporality" => {
                member.enumeration(&mut self.aggregation_temporality, temporality)
            }
            _ => member.skip(),
        }
    }
}

impl Members for ExponentialHistogram {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"dataPoints" | b"data_points" => member.details(&mut self.data_points),
            b"aggregationTemporality" | b"aggregation_temporality" => {
                member.enumeration(&mut self.aggregation_temporality, temporality)
            }
            _ => member.skip(),
        }
    }
}

impl Members for Summary {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"dataPoints" | b"data_points" => member.details(&mut self.data_points),
            _ => member.skip(),
        }
    }
}

impl Members for NumberDataPoint {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"attributes" => member.attributes(&mut self.attributes),
            b"startTimeUnixNano" | b"start_time_unix_nano" => member.integer(&mut self.start_time_unix_nano),
            b"timeUnixNano" | b"time_unix_nano" => member.integer(&mut self.time_unix_nano),
            b"asInt" | b"as_int" => member.number(&mut self.value, |leaf| leaf.integer().map(Value::AsInt)),
            b"asDouble" | b"as_double" => {
                member.number(&mut self.value, |leaf| leaf.double().map(Value::AsDouble))
            }
            b"flags" => member.integer(&mut self.flags),
            _ => member.skip(),
        }
    }
}

impl Members for HistogramDataPoint {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"attributes" => member.attributes(&mut self.attributes),
            b"startTimeUnixNano" | b"start_time_unix_nano" => member.integer(&mut self.start_time_unix_nano),
            b"timeUnixNano" | b"time_unix_nano" => member.integer(&mut self.time_unix_nano),
            b"count" => member.integer(&mut self.count),
            b"sum" => member.optional_double(&mut self.sum),
            b"bucketCounts" | b"bucket_counts" => member.scalars(&mut self.bucket_counts),
            b"explicitBounds" | b"explicit_bounds" => member.scalars(&mut self.explicit_bounds),
            b"flags" => member.integer(&mut self.flags),
            b"min" => member.optional_double(&mut self.min),
            b"max" => member.optional_double(&mut self.max),
            _ => member.skip(),
        }
    }
}

impl Members for ExponentialHistogramDataPoint {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"attributes" => member.attributes(&mut self.attributes),
            b"startTimeUnixNano" | b"start_time_unix_nano" => member.integer(&mut self.start_time_unix_nano),
            b"timeUnixNano" | b"time_unix_nano" => member.integer(&mut self.time_unix_nano),
            b"count" => member.integer(&mut self.count),
            b"sum" => member.optional_double(&mut self.sum),
            b"scale" => member.integer(&mut self.scale),
            b"zeroCount" | b"zero_count" => member.integer(&mut self.zero_count),
            b"positive" => member.message(&mut self.positive),
            b"negative" => member.message(&mut self.negative),
            b"flags" => member.integer(&mut self.flags),
            b"min" => member.optional_double(&mut self.min),
            b"max" => member.optional_double(&mut self.max),
            b"zeroThreshold" | b"zero_threshold" => member.double(&mut self.zero_threshold),
            _ => member.skip(),
        }
    }
}

impl Members for Buckets {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"offset" => member.integer(&mut self.offset),
            b"bucketCounts" | b"bucket_counts" => member.scalars(&mut self.bucket_counts),
            _ => member.skip(),
        }
    }
}

impl Members for SummaryDataPoint {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"attributes" => member.attributes(&mut self.attributes),
            b"startTimeUnixNano" | b"start_time_unix_nano" => member.integer(&mut self.start_time_unix_nano),
            b"timeUnixNano" | b"time_unix_nano" => member.integer(&mut self.time_unix_nano),
            b"count" => member.integer(&mut self.count),
            b"sum" => member.double(&mut self.sum),
            b"quantileValues" | b"quantile_values" => member.details(&mut self.quantile_values),
            b"flags" => member.integer(&mut self.flags),
            _ => member.skip(),
        }
    }
}

impl Members for ValueAtQuantile {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"quantile" => member.double(&mut self.quantile),
            b"value" => member.double(&mut self.value),
            _ => member.skip(),
        }
    }
}

fn temporality(name: &str) -> Option<i32> {
    AggregationTemporality::from_str_name(name).map(|temporality| temporality as i32)
}
