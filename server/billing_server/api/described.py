"""Server reflection with comments: `grpcurl describe` is the reference manual.

The usual reflection serves what generated code knows, which has no comments and finds no methods. This one
serves the descriptor set that is generated beside the code, and leaves everything else to the usual one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import FileDescriptorResponse, ServerReflectionResponse

from billing.v1 import options_pb2

DESCRIPTOR_SET_NAME = "billing.binpb"


class MissingDescriptorsError(Exception):
    """The descriptor set is not where the generated code is: the installation is incomplete."""


def read_descriptors() -> FileDescriptorSet:
    """The descriptor set that was generated with the code: beside it in a checkout, within it when installed."""
    package = Path(options_pb2.__file__).parents[1]
    for folder in (package, package.parent):
        path = folder / DESCRIPTOR_SET_NAME
        if path.is_file():
            return FileDescriptorSet.FromString(path.read_bytes())
    raise MissingDescriptorsError(f"{DESCRIPTOR_SET_NAME} is missing beside {package}; run `make protos`")


class DescribedReflection(ReflectionServicer):
    """Reflection that knows the comments, and finds methods, fields and enum values by name, too."""

    def __init__(self, service_names: Iterable[str], descriptors: FileDescriptorSet) -> None:
        super().__init__(service_names)
        self._files = {file.name: file for file in descriptors.file}
        self._file_of = {symbol: file.name for file in descriptors.file for symbol in _symbols(file)}

    def _file_by_filename(self, request: Any, filename: str) -> ServerReflectionResponse:
        if filename not in self._files:
            return super()._file_by_filename(request, filename)
        return self._with_dependencies(request, filename)

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> ServerReflectionResponse:
        filename = self._file_of.get(fully_qualified_name)
        if filename is None:
            return super()._file_containing_symbol(request, fully_qualified_name)
        return self._with_dependencies(request, filename)

    def _with_dependencies(self, request: Any, filename: str) -> ServerReflectionResponse:
        wanted: dict[str, bytes] = {}
        waiting = [filename]
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted[name] = self._files[name].SerializeToString()
                waiting += self._files[name].dependency
        return ServerReflectionResponse(
            file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=wanted.values()),
            original_request=request,
        )


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """All names that a file defines."""
    for service in file.service:
        name = f"{file.package}.{service.name}"
        yield name
        for method in service.method:
            yield f"{name}.{method.name}"
    for enum in file.enum_type:
        yield f"{file.package}.{enum.name}"
        for value in enum.value:
            yield f"{file.package}.{value.name}"
    for message in file.message_type:
        yield from _symbols_of_message(file.package, message)


def _symbols_of_message(scope: str, message: DescriptorProto) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield name
    for field in message.field:
        yield f"{name}.{field.name}"
    for nested in message.nested_type:
        yield from _symbols_of_message(name, nested)
