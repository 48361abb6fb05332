#!/usr/bin/env python3
"""decode_perfetto.py FILE: decodes a Perfetto trace with the message definitions of the Python package `perfetto` and prints it.

One JSON array a line: ["event", name, ts, cpu, pid, {field: value}] for an ftrace event, ["slice", kind, ts, track, name, {annotation: value}],
["track", uuid, parent, thread, name], ["thread", tid, name]. Fails on anything that the definitions do not know.
"""
import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb


def known(message):
    """Every field of a message and of those in it is defined."""
    assert len(UnknownFieldSet(message)) == 0, f"unknown field in {message.DESCRIPTOR.name}"
    for field, value in message.ListFields():
        if field.message_type is not None:
            for m in [value] if hasattr(value, "ListFields") else value:
                known(m)


def one(message, names):
    """The one of these fields that is set, else None."""
    return next((getattr(message, n) for n in names if message.HasField(n)), None)


def show(*values):
    print(json.dumps(values, ensure_ascii=False))


trace = pb.Trace()
trace.ParseFromString(open(sys.argv[1], "rb").read())
known(trace)
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id != 0
    for thread in packet.process_tree.threads:
        show("thread", thread.tid, thread.name)
    for event in packet.ftrace_events.event:
        kind = next(f.name for f, _ in event.ListFields() if f.message_type is not None)
        message = getattr(event, kind)
        if kind == "generic":
            name = message.event_name
            fields = {f.name: one(f, ["str_value", "int_value", "uint_value"]) for f in message.field}
        else:
            name, fields = kind, {f.name: v for f, v in message.ListFields()}
            fields = {f.name: getattr(message, f.name) for f in message.DESCRIPTOR.fields}
        show("event", name, event.timestamp, packet.ftrace_events.cpu, event.pid, fields)
    if packet.HasField("track_descriptor"):
        d = packet.track_descriptor
        show("track", d.uuid, d.parent_uuid, d.thread.tid, d.thread.thread_name or d.name)
    if packet.HasField("track_event"):
        e = packet.track_event
        kind = {e.TYPE_SLICE_BEGIN: "begin", e.TYPE_SLICE_END: "end"}[e.type]
        notes = {a.name: one(a, ["string_value", "int_value", "uint_value"]) for a in e.debug_annotations}
        show("slice", kind, packet.timestamp, e.track_uuid, e.name, notes)
