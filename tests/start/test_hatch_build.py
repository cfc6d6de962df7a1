"""The code generator behind `make protos`, editable installs and wheels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from hatch_build import generate

THING = """
syntax = "proto3";
package billing.v1;
import "google/protobuf/timestamp.proto";
import "google/rpc/error_details.proto";
// A thing.
message Thing {
  // When it was made.
  google.protobuf.Timestamp made = 1;
  // Why it failed.
  google.rpc.ErrorInfo error = 2;
}
// Serves things.
service ThingService {
  // Get one.
  rpc GetThing(Thing) returns (Thing);
  // Follow them.
  rpc StreamThings(Thing) returns (stream Thing);
}
"""

USE = """
from billing.v1 import thing_pb2, thing_pb2_grpc
thing = thing_pb2.Thing()
thing.error.reason = "BROKEN"
print(thing.error.reason, thing_pb2_grpc.ThingServiceStub.__name__)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    proto = tmp_path / "a checkout's folder" / "protos" / "billing" / "v1" / "thing.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(THING)
    return tmp_path / "a checkout's folder"


def test_generates_importable_typed_modules(checkout: Path) -> None:
    assert generate(checkout) == ["billing/v1/thing.proto"]
    generated = checkout / "generated"
    environment = {**os.environ, "PYTHONPATH": str(generated)}
    finished = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout == "BROKEN ThingServiceStub\n"
    assert (generated / "billing" / "py.typed").exists()
    stubs = (generated / "billing" / "v1" / "thing_pb2_grpc.pyi").read_text()
    assert "_abc.AsyncIterator[_thing_pb2.Thing]" in stubs


def test_the_descriptor_set_is_whole_and_keeps_the_comments(checkout: Path) -> None:
    generate(checkout)
    text = (checkout / "generated" / "billing.binpb").read_bytes()
    files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(text).file}
    assert {"billing/v1/thing.proto", "google/rpc/error_details.proto"} <= files.keys()
    comments = [place.leading_comments for place in files["billing/v1/thing.proto"].source_code_info.location]
    assert " Serves things.\n" in comments


def test_follows_the_protos_and_leaves_the_unchanged_alone(checkout: Path) -> None:
    generate(checkout)
    module = checkout / "generated" / "billing" / "v1" / "thing_pb2.py"
    os.utime(module, (1, 1))
    second = checkout / "protos" / "billing" / "gateway" / "v1" / "gateway.proto"
    second.parent.mkdir(parents=True)
    second.write_text('syntax = "proto3";\npackage billing.gateway.v1;\nmessage Charge {}\n')
    generate(checkout)
    assert module.stat().st_mtime == 1
    assert (checkout / "generated" / "billing" / "gateway" / "v1" / "gateway_pb2.py").exists()
    second.unlink()
    generate(checkout)
    assert not (checkout / "generated" / "billing" / "gateway").exists()
    assert module.exists()


def test_without_protos_the_package_is_empty(tmp_path: Path) -> None:
    assert generate(tmp_path) == []
    assert (tmp_path / "generated" / "billing" / "__init__.py").exists()


def test_a_broken_proto_is_told_with_its_place(checkout: Path) -> None:
    (checkout / "protos" / "billing" / "v1" / "thing.proto").write_text('syntax = "proto3";\nmessage {}\n')
    with pytest.raises(SystemExit, match=r"thing\.proto:2"):
        generate(checkout)
