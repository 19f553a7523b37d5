#!/usr/bin/env python3
"""Prints captured OTLP bodies as a tree for reading: spans with attributes, events, status; log records; metrics.

    .tools/otel/otel-openai/bin/python tests/otel/show.py tests/otel/corpus/langfuse [--long]

It needs `opentelemetry-proto` for protobuf bodies, which any of the Python environments of a family has.
"""

import argparse
import json
import re
from pathlib import Path

def parse_protobuf(signal, data):
    # Imported here, so that JSON bodies can be read with no library at all.
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = {
        "traces": ExportTraceServiceRequest,
        "logs": ExportLogsServiceRequest,
        "metrics": ExportMetricsServiceRequest,
    }[signal]()
    request.ParseFromString(data)
    return MessageToDict(request)


def read(path):
    """One body as OTLP/JSON, except that ids are in base64 where the body was protobuf."""
    _number, signal, encoding = path.name.split(".")
    data = path.read_bytes()
    return signal, json.loads(data) if encoding == "json" else parse_protobuf(signal, data)


def bodies(directory):
    """Every body of a capture, in the order it was received."""
    for path in sorted(directory.iterdir()):
        if re.fullmatch(r"\d{3}\.(traces|logs|metrics)\.(pb|json)", path.name):
            yield path.name, *read(path)


def plain(value):
    if not value:
        return None
    kind, inner = next(iter(value.items()))
    if kind == "arrayValue":
        return [plain(item) for item in inner.get("values", [])]
    if kind == "kvlistValue":
        return {item["key"]: plain(item.get("value")) for item in inner.get("values", [])}
    return int(inner) if kind == "intValue" else inner


def attributes(record):
    return {item["key"]: plain(item.get("value")) for item in record.get("attributes", [])}


def print_attributes(record, indent, limit):
    for key, value in sorted(attributes(record).items()):
        text = json.dumps(value, ensure_ascii=False)
        print(f"{indent}{key} = {text if len(text) <= limit else text[:limit] + '…'}")


def show_traces(body, limit):
    for resource in body.get("resourceSpans", []):
        print("  resource", json.dumps(attributes(resource.get("resource", {}))))
        for scope in resource.get("scopeSpans", []):
            print("  scope", json.dumps(scope.get("scope", {})), scope.get("schemaUrl", ""))
            for span in scope["spans"]:
                parent = span.get("parentSpanId") or "-"
                print(f"    SPAN {span['name']!r} kind={span.get('kind')} trace={span['traceId'][:6]}", end=" ")
                print(f"id={span['spanId']} parent={parent} status={json.dumps(span.get('status', {}))}")
                print_attributes(span, "      ", limit)
                for event in span.get("events", []):
                    print(f"      EVENT {event['name']}")
                    print_attributes(event, "        ", limit)


def show_logs(body, limit):
    for resource in body.get("resourceLogs", []):
        for scope in resource.get("scopeLogs", []):
            print("  scope", json.dumps(scope.get("scope", {})))
            for record in scope["logRecords"]:
                head = {key: record.get(key) for key in ("eventName", "severityNumber", "body", "spanId")}
                print("    LOG", json.dumps(head))
                print_attributes(record, "      ", limit)


def show_metrics(body, limit):
    for resource in body.get("resourceMetrics", []):
        for scope in resource.get("scopeMetrics", []):
            print("  scope", json.dumps(scope.get("scope", {})))
            for metric in scope["metrics"]:
                kind = next(key for key in metric if key not in ("name", "description", "unit"))
                print(f"    METRIC {metric['name']} {kind} {metric.get('unit', '')}")
                for point in metric[kind].get("dataPoints", []):
                    text = json.dumps(attributes(point))
                    print(f"      {text[:limit]} count={point.get('count')} sum={point.get('sum')}")


SHOW = {"traces": show_traces, "logs": show_logs, "metrics": show_metrics}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--long", action="store_true", help="do not shorten attribute values")
    arguments = parser.parse_args()
    for name, signal, body in bodies(arguments.directory):
        print(name)
        SHOW[signal](body, 100_000 if arguments.long else 160)


if __name__ == "__main__":
    main()
