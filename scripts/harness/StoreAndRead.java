import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Stores a value and reads it with the client that Java gives whoever asks for none: URL KEY. */
public class StoreAndRead {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 0; number < 5; number++) {
            String value = "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 " + number + "x".repeat(number * 20_000);
            URI address = URI.create(arguments[0] + "/memory/java/k" + number);
            HttpResponse<String> stored = client.send(
                HttpRequest.newBuilder(address)
                    .header("X-API-Key", arguments[1])
                    .header("Content-Type", "application/json")
                    .PUT(HttpRequest.BodyPublishers.ofString("{\"value\":\"" + value + "\"}"))
                    .build(),
                HttpResponse.BodyHandlers.ofString());
            HttpResponse<String> read = client.send(
                HttpRequest.newBuilder(address).header("X-API-Key", arguments[1]).build(),
                HttpResponse.BodyHandlers.ofString());
            if (stored.statusCode() != 200 || !read.body().contains("\"" + value + "\"")) {
                System.out.println(stored.statusCode() + " " + stored.body());
                System.out.println(read.statusCode() + " " + read.body());
                System.exit(1);
            }
        }
        System.out.println("stored and read");
    }
}
