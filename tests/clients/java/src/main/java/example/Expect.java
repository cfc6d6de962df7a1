package example;

import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.util.Objects;
import java.util.function.Supplier;

/** Ends a step with an AssertionError when something is not as expected. */
final class Expect {
    private Expect() {}

    static void that(boolean condition, String message) {
        if (!condition) {
            throw new AssertionError(message);
        }
    }

    static void equal(String what, Object expected, Object actual) {
        that(Objects.equals(expected, actual), what + ": expected " + expected + ", got " + actual);
    }

    /** The error of a call that must fail with this code. */
    static StatusRuntimeException statusCode(Code code, Supplier<Object> call) {
        Object response;
        try {
            response = call.get();
        } catch (StatusRuntimeException error) {
            equal("status code of " + error, code, error.getStatus().getCode());
            return error;
        }
        throw new AssertionError("expected " + code + ", got " + response);
    }
}
