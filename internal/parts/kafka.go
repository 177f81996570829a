package parts

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

//go:embed kafka/pom.xml
var kafkaPom []byte

// Broker is an Apache Kafka broker, which is its own controller.
type Broker struct {
	Server

	id     int
	port   int // of clients
	quorum int // port of controllers
}

// ListenAddrs is where clients reach the broker.
func (b *Broker) ListenAddrs() []string { return []string{loopback(b.port)} }

// ID is the broker's number, as it stands in metadata.
func (b *Broker) ID() int { return b.id }

// Cluster is several brokers that are one Kafka.
type Cluster struct{ Brokers []*Broker }

// ListenAddrs is where clients reach the brokers.
func (c *Cluster) ListenAddrs() []string {
	addresses := make([]string, 0, len(c.Brokers))
	for _, b := range c.Brokers {
		addresses = append(addresses, b.ListenAddrs()...)
	}
	return addresses
}

// Broker finds a broker by its number.
func (c *Cluster) Broker(tb testing.TB, id int) *Broker {
	tb.Helper()
	i := slices.IndexFunc(c.Brokers, func(b *Broker) bool { return b.id == id })
	if i < 0 {
		tb.Fatalf("the cluster has no broker %d", id)
	}
	return c.Brokers[i]
}

func (c *Cluster) kill() {
	for _, b := range c.Brokers {
		b.kill()
	}
}

// Setting changes one of a broker's settings (server.properties).
type Setting func(properties map[string]string)

// Set sets a property of the broker, such as message.max.bytes.
func Set(property, value string) Setting {
	return func(properties map[string]string) { properties[property] = value }
}

// Kafka starts a broker for one test.
func Kafka(tb testing.TB, settings ...Setting) *Broker {
	tb.Helper()
	return own(tb, tb.TempDir(), func(ctx context.Context, folder string) (*Broker, error) {
		return startBroker(ctx, folder, settings)
	})
}

// KafkaCluster starts three brokers for one test. A topic of theirs has three
// replicas and wants two of them for a write, unless it says otherwise.
func KafkaCluster(tb testing.TB, settings ...Setting) *Cluster {
	tb.Helper()
	return own(tb, tb.TempDir(), func(ctx context.Context, folder string) (*Cluster, error) {
		return startCluster(ctx, folder, 3, settings)
	})
}

var sharedKafka shared[*Broker]

// SharedKafka is the broker that all tests of this binary share, each with
// topics and groups of its own.
func SharedKafka(tb testing.TB) *Broker {
	tb.Helper()
	return sharedKafka.get(tb, func(ctx context.Context, folder string) (*Broker, error) {
		return startBroker(ctx, folder, nil)
	})
}

func startBroker(ctx context.Context, folder string, settings []Setting) (*Broker, error) {
	cluster, err := startCluster(ctx, folder, 1, settings)
	if err != nil {
		return nil, err
	}
	return cluster.Brokers[0], nil
}

func startCluster(ctx context.Context, folder string, brokers int, settings []Setting) (*Cluster, error) {
	c := &Cluster{}
	for id := 1; id <= brokers; id++ {
		b, err := newBroker(ctx, id)
		if err != nil {
			return nil, err
		}
		c.Brokers = append(c.Brokers, b)
	}
	var starts errgroup.Group
	for _, b := range c.Brokers {
		starts.Go(func() error { return c.start(ctx, b, filepath.Join(folder, fmt.Sprint(b.id)), settings) })
	}
	if err := starts.Wait(); err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

func newBroker(ctx context.Context, id int) (*Broker, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	quorum, err := freePort(ctx)
	return &Broker{id: id, port: port, quorum: quorum}, err
}

// clusterID is sixteen bytes in base64, as Kafka wants it. Clusters share it and
// nothing else.
const clusterID = "ZWNyZWRzLXBhcnRzLWlkIQ"

// start formats a broker's folder, starts it, and returns when it knows all
// brokers of the cluster.
func (c *Cluster) start(ctx context.Context, b *Broker, folder string, settings []Setting) error {
	if err := os.Mkdir(folder, 0o750); err != nil {
		return err
	}
	config := filepath.Join(folder, "server.properties")
	if err := os.WriteFile(config, c.properties(b, folder, settings), 0o600); err != nil {
		return err
	}
	format, err := java(ctx, "kafka", kafkaPom, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", config)
	if err != nil {
		return err
	}
	if _, err := execute(ctx, nil, format...); err != nil {
		return fmt.Errorf("format the folder of broker %d: %w", b.id, err)
	}
	serve, err := java(ctx, "kafka", kafkaPom, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", "kafka.Kafka", config)
	if err != nil {
		return err
	}
	b.command = command{
		name: fmt.Sprintf("Kafka broker %d", b.id), args: serve, log: filepath.Join(folder, "log"), stop: syscall.SIGTERM,
	}
	b.answers = func(ctx context.Context) error { return b.knows(ctx, c.Brokers) }
	if err := b.Server.start(ctx); err != nil {
		return err
	}
	b.answers = func(ctx context.Context) error { return b.knows(ctx, []*Broker{b}) } // others may be down by then
	return nil
}

// askTimeout is for an answer of a broker that accepts connections.
const askTimeout = 5 * time.Second

// knows asks the broker which brokers there are.
func (b *Broker) knows(ctx context.Context, brokers []*Broker) error {
	conn, err := kafka.DialContext(ctx, "tcp", loopback(b.port))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it has said what was asked
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	if _, err := conn.ApiVersions(); err != nil {
		return err
	}
	live, err := conn.Brokers()
	if err != nil {
		return err
	}
	for _, wanted := range brokers {
		if !slices.ContainsFunc(live, func(b kafka.Broker) bool { return b.ID == wanted.id }) {
			return fmt.Errorf("it does not know broker %d yet", wanted.id)
		}
	}
	return nil
}

// properties are those of a broker of a small cluster whose tests restart it:
// sessions are short, since after kill -9 a broker serves again only when its
// old registration has lapsed, groups do not wait for members to come, and a
// compacted topic not for long to be compacted.
func (c *Cluster) properties(b *Broker, folder string, settings []Setting) []byte {
	replicas := fmt.Sprint(len(c.Brokers))
	insync := fmt.Sprint(max(1, len(c.Brokers)-1))
	var voters []string
	for _, b := range c.Brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, loopback(b.quorum)))
	}
	properties := map[string]string{
		"process.roles": "broker,controller", "node.id": fmt.Sprint(b.id),
		"controller.quorum.voters": strings.Join(voters, ","), "controller.listener.names": "CONTROLLER",
		"listeners":            "PLAINTEXT://" + loopback(b.port) + ",CONTROLLER://" + loopback(b.quorum),
		"advertised.listeners": "PLAINTEXT://" + loopback(b.port),
		"log.dirs":             filepath.Join(folder, "data"),

		"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500",
		"group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000",
		"log.cleaner.backoff.ms":    "500",
		"auto.create.topics.enable": "false", "default.replication.factor": replicas, "min.insync.replicas": insync,

		"offsets.topic.num.partitions": "4", "offsets.topic.replication.factor": replicas,
		"transaction.state.log.num.partitions": "1", "transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr": insync, "share.coordinator.state.topic.num.partitions": "1",
		"share.coordinator.state.topic.replication.factor": replicas, "share.coordinator.state.topic.min.isr": insync,
	}
	for _, set := range settings {
		set(properties)
	}
	var file strings.Builder
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&file, "%s=%s\n", name, properties[name])
	}
	return []byte(file.String())
}
