// Java's own HTTP client (java.net.http). Arguments: URL, CA file, megabytes, messages.
// Bodies down and up, and down at 20 Mbit/s, over HTTP/2. Its WebSockets are HTTP/1.1: messages of 4 KB and of 6 bytes.
// Prints `ok` and the figures, or what failed.
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class HttpClientLoad {
    static HttpClient client;
    static String url;

    static <T> HttpResponse<T> send(HttpRequest.Builder request, HttpResponse.BodyHandler<T> handler) throws Exception {
        HttpResponse<T> response = client.send(request.build(), handler);
        if (response.version() != HttpClient.Version.HTTP_2 || response.statusCode() != 200) {
            throw new Exception(response.version() + " " + response.statusCode());
        }
        return response;
    }

    static void down(long length, boolean slow) throws Exception {
        long begun = System.nanoTime();
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/bytes/" + length));
        long count = 0;
        try (InputStream body = send(request, HttpResponse.BodyHandlers.ofInputStream()).body()) {
            byte[] piece = new byte[4096];
            for (int read; (read = body.read(piece)) >= 0; ) {
                count += read;
                long ahead = begun + count * 400 - System.nanoTime();
                if (slow && ahead > 0) TimeUnit.NANOSECONDS.sleep(ahead);
            }
        }
        if (count != length) throw new Exception(count + " bytes instead of " + length);
        told(slow ? "slow" : "down", begun);
    }

    static void up(long length) throws Exception {
        long begun = System.nanoTime();
        byte[] piece = new byte[1_000_000];
        Iterable<byte[]> pieces = () -> java.util.stream.LongStream.range(0, length / piece.length).mapToObj(i -> piece).iterator();
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/count"));
        request.POST(HttpRequest.BodyPublishers.fromPublisher(HttpRequest.BodyPublishers.ofByteArrays(pieces), length));
        String count = send(request, HttpResponse.BodyHandlers.ofString()).body();
        if (!count.equals(Long.toString(length))) throw new Exception(count + " bytes came of " + length);
        told("up", begun);
    }

    static void messages(String what, int size, int count) throws Exception {
        long begun = System.nanoTime();
        // So many are on their way at a time.
        Semaphore ahead = new Semaphore(64);
        CompletableFuture<Void> all = new CompletableFuture<>();
        WebSocket.Listener listener = new WebSocket.Listener() {
            int came = 0;

            public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
                socket.request(1);
                if (last) {
                    ahead.release();
                    if (++came == count) all.complete(null);
                }
                return null;
            }

            public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
                all.completeExceptionally(new Exception(what + ": " + code + " " + reason + " after " + came));
                return null;
            }

            public void onError(WebSocket socket, Throwable error) {
                all.completeExceptionally(error);
            }
        };
        URI echo = URI.create(url.replace("https:", "wss:") + "/echo");
        WebSocket socket = client.newWebSocketBuilder().buildAsync(echo, listener).get(10, TimeUnit.SECONDS);
        for (int i = 0; i < count; i++) {
            while (!ahead.tryAcquire(1, TimeUnit.SECONDS)) {
                if (all.isCompletedExceptionally()) all.get();
            }
            socket.sendBinary(ByteBuffer.allocate(size), true).get(30, TimeUnit.SECONDS);
        }
        all.get(60, TimeUnit.SECONDS);
        socket.sendClose(WebSocket.NORMAL_CLOSURE, "").get(10, TimeUnit.SECONDS);
        told(what, begun);
    }

    static void told(String what, long begun) {
        System.out.printf("%s %.1f s, ", what, (System.nanoTime() - begun) / 1e9);
    }

    public static void main(String[] args) throws Exception {
        url = args[0];
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (FileInputStream pem = new FileInputStream(args[1])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).sslContext(tls).build();
        long length = Long.parseLong(args[2]) * 1_000_000;
        int count = Integer.parseInt(args[3]);
        down(length, false);
        down(length / 8, true);
        up(length);
        messages("4 KB messages", 4096, (int) (length / 4096));
        messages("tiny messages", 6, count);
        System.out.println("ok");
        System.exit(0);
    }
}
