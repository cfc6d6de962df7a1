package example;

import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/**
 * Calls the billing engine from Java: subscriptions, refusals with their details, and the stream of events.
 *
 * <p>Prints a line for each step. The first surprise ends the program with status 1 and says what was expected.
 */
public final class Main {
    private Main() {}

    /** Takes the address of the engine from BILLING_TARGET and the key from BILLING_API_KEY. */
    public static void main(String[] arguments) throws InterruptedException {
        // Keys travel in plaintext here: right on loopback only. Elsewhere use TlsChannelCredentials.
        ManagedChannel channel =
                Grpc.newChannelBuilder(required("BILLING_TARGET"), InsecureChannelCredentials.create()).build();
        int exitStatus = run(channel, required("BILLING_API_KEY"));
        channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
        System.exit(exitStatus);
    }

    private static int run(Channel channel, String key) {
        Example example = new Example(channel, key);
        for (var step : example.steps().entrySet()) {
            try {
                System.out.println(step.getKey() + ": " + step.getValue().take());
            } catch (Exception | AssertionError surprise) {
                System.err.println("surprise: " + step.getKey() + ": " + surprise);
                surprise.printStackTrace();
                return 1;
            }
        }
        return 0;
    }

    private static String required(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            System.err.println("surprise: " + name + " is not set");
            System.exit(1);
        }
        return value;
    }
}
