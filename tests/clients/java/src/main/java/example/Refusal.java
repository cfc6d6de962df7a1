package example;

import billing.v1.ErrorReason;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.Status.Code;
import io.grpc.protobuf.StatusProto;
import java.util.function.Supplier;

/** What the engine tells when it refuses a request. */
record Refusal(ErrorInfo info, BadRequest badRequest) {

    /** Sends the request and decodes the details of its refusal. */
    static Refusal of(Supplier<Object> request, Code code, ErrorReason reason) throws InvalidProtocolBufferException {
        Refusal refusal = of(request, code);
        String name = reason.name().replaceFirst("^ERROR_REASON_", "");
        Expect.equal("reason", name, refusal.info.getReason());
        return refusal;
    }

    /** Sends the request and decodes the details of its refusal, whatever its reason. */
    static Refusal of(Supplier<Object> request, Code code) throws InvalidProtocolBufferException {
        Status status = StatusProto.fromThrowable(Expect.statusCode(code, request));
        ErrorInfo info = ErrorInfo.getDefaultInstance();
        BadRequest badRequest = BadRequest.getDefaultInstance();
        for (Any detail : status.getDetailsList()) {
            if (detail.is(ErrorInfo.class)) {
                info = detail.unpack(ErrorInfo.class);
            } else if (detail.is(BadRequest.class)) {
                badRequest = detail.unpack(BadRequest.class);
            }
        }
        Expect.equal("domain", "billing.v1", info.getDomain());
        return new Refusal(info, badRequest);
    }
}
