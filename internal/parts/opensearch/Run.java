import org.codelibs.opensearch.runner.OpenSearchRunner;

/** Runs one node until it is killed: Run.java FOLDER HTTP_PORT TRANSPORT_PORT. */
public class Run {
    public static void main(String[] args) throws Exception {
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("http.port", args[1]);
            settings.put("transport.port", args[2]);
            settings.put("discovery.type", "single-node");
            settings.putList("network.host", "127.0.0.1");
            // A full disk of the machine is none of the tests' business.
            settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
        }).build(OpenSearchRunner.newConfigs().basePath(args[0]).numOfNode(1).clusterName("parts").useLogger());
        runner.ensureYellow();
        Thread.currentThread().join();
    }
}
