"""Server reflection with comments: `grpcurl describe` is the reference manual.

The library's own reflection serves what generated code knows, which has no comments, and finds no methods. This
one serves the descriptor set that is generated beside the code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import Default
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

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


class DescribedReflection:
    """Answers reflection's questions from files with comments; finds methods, fields and enum values, too.

    Also the details of refusals, which travel packed: without their descriptors a caller by hand sees bytes.
    """

    def __init__(self, service_names: Iterable[str], descriptors: FileDescriptorSet) -> None:
        self._service_names = sorted(service_names)
        self._files = {file.name: file for file in descriptors.file}
        for name in self._service_names:
            self._add(Default().FindFileContainingSymbol(name))
        self._add(error_details_pb2.DESCRIPTOR)
        self._file_of = {symbol: file.name for file in self._files.values() for symbol in _symbols(file)}
        self._extensions = {
            (extension.extendee.removeprefix("."), extension.number): file.name
            for file in self._files.values()
            for extension in file.extension
        }

    def _add(self, descriptor: Any) -> None:
        """Serve a file that came with a library, and what it depends on; without comments."""
        if descriptor.name not in self._files:
            file = FileDescriptorProto()
            descriptor.CopyToProto(file)
            self._files[descriptor.name] = file
            for dependency in descriptor.dependencies:
                self._add(dependency)

    async def answer(self, questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[ServerReflectionResponse]:
        """One answer for each question of a stream."""
        async for question in questions:
            yield self._answer(question)

    def _answer(self, question: Any) -> ServerReflectionResponse:
        response = ServerReflectionResponse(original_request=question)
        kind = question.WhichOneof("message_request")
        if kind == "list_services":
            response.list_services_response.service.extend(map(self._service, self._service_names))
        elif kind == "all_extension_numbers_of_type":
            wanted = question.all_extension_numbers_of_type
            numbers = [number for extended, number in self._extensions if extended == wanted]
            response.all_extension_numbers_response.base_type_name = wanted
            response.all_extension_numbers_response.extension_number.extend(sorted(numbers))
        else:
            self._describe(self._filename(kind, question), response)
        return response

    @staticmethod
    def _service(name: str) -> ServiceResponse:
        return ServiceResponse(name=name)

    def _filename(self, kind: str | None, question: Any) -> str | None:
        if kind == "file_by_filename":
            return str(question.file_by_filename)
        if kind == "file_containing_symbol":
            return self._file_of.get(question.file_containing_symbol)
        extension = question.file_containing_extension
        return self._extensions.get((extension.containing_type, extension.extension_number))

    def _describe(self, filename: str | None, response: ServerReflectionResponse) -> None:
        """The file with all that it depends on, or that there is none."""
        if filename not in self._files:
            code, text = grpc.StatusCode.NOT_FOUND.value
            response.error_response.error_code = code
            response.error_response.error_message = text
            return
        wanted: dict[str, bytes] = {}
        waiting = [filename]
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted[name] = self._files[name].SerializeToString()
                waiting += self._files[name].dependency
        response.file_descriptor_response.file_descriptor_proto.extend(wanted.values())


def reflection_handlers(reflection: DescribedReflection) -> grpc.GenericRpcHandler:
    """How a server takes reflection's questions."""
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.answer,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE_NAME, {"ServerReflectionInfo": handler})


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
