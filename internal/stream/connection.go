package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// ConnectionConfig says where the brokers are and how they are reached.
type ConnectionConfig struct {
	Brokers  []string    // to begin with, each host:port
	ClientID string      // as the brokers' logs and quotas know us
	TLS      *tls.Config // nil = without TLS
	SASL     Mechanism   // nil = without credentials; see [SASL]
}

// Connection is how every part reaches Kafka. The client library has two ways
// of its own, a dialer and a transport; they are set up here once and alike.
type Connection struct {
	brokers   []string
	door      *door
	dialer    *kafka.Dialer
	transport *kafka.Transport
	client    *kafka.Client
}

const (
	// dialTimeout bounds opening a connection: TLS and credentials included.
	dialTimeout = 5 * time.Second
	// metadataTTL is how long a moved partition leader may stay unnoticed.
	metadataTTL = 2 * time.Second
	// requestTimeout bounds one administrative request.
	requestTimeout = 10 * time.Second
)

// NewConnection prepares a connection. Nothing is dialled yet.
func NewConnection(config ConnectionConfig) (*Connection, error) {
	for _, broker := range config.Brokers {
		if _, _, err := net.SplitHostPort(broker); err != nil {
			return nil, fmt.Errorf("%q is not a broker address: it must be host:port", broker)
		}
	}
	if len(config.Brokers) == 0 {
		return nil, errors.New("no broker is given")
	}
	door := &door{
		brokers: strings.Join(config.Brokers, ","), clientID: config.ClientID, tls: config.TLS, sasl: config.SASL,
	}
	transport := &kafka.Transport{
		ClientID: config.ClientID, DialTimeout: dialTimeout, MetadataTTL: metadataTTL, Dial: door.open,
	}
	return &Connection{
		brokers:   config.Brokers,
		door:      door,
		dialer:    &kafka.Dialer{ClientID: config.ClientID, Timeout: dialTimeout, DialFunc: door.open},
		transport: transport,
		client:    &kafka.Client{Addr: kafka.TCP(config.Brokers...), Transport: refresher{transport}, Timeout: requestTimeout},
	}, nil
}

// refresher drops the connections that are kept for reuse when one of them turns
// out to be dead. After a broker's restart all are, and the transport would find
// out one by one: with each a request is lost, and the wait before the next.
type refresher struct{ *kafka.Transport }

// RoundTrip is for the client.
func (r refresher) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	response, err := r.Transport.RoundTrip(ctx, addr, request)
	if hungUp(err) {
		r.CloseIdleConnections()
	}
	return response, err
}

// Close drops the connections that are kept for reuse.
func (c *Connection) Close() { c.transport.CloseIdleConnections() }

// Ping says whether some broker answers. The client library answers for the
// metadata from memory once it had some, so the brokers are asked something else
// as well.
func (c *Connection) Ping(ctx context.Context) error {
	if _, err := c.client.Metadata(ctx, &kafka.MetadataRequest{}); err != nil {
		return c.explain(err)
	}
	_, err := c.client.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	return c.explain(err)
}

// MissingTopicError says which topics do not exist and may not be created.
type MissingTopicError struct{ Topics []string }

func (e *MissingTopicError) Error() string {
	return fmt.Sprintf("topic %s does not exist; create it, or set TOPICS_CREATE=true", strings.Join(e.Topics, ", "))
}

// EnsureTopics checks that topics exist. With create, the missing ones are
// created with this many partitions and as many replicas as the cluster has
// brokers, at most three; otherwise a missing topic is an error that names it.
func (c *Connection) EnsureTopics(ctx context.Context, topics []string, partitions int, create bool) error {
	metadata, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return c.explain(err)
	}
	missing, err := missingTopics(metadata)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	if !create {
		return &MissingTopicError{Topics: missing}
	}
	return c.createTopics(ctx, missing, partitions, min(len(metadata.Brokers), 3))
}

// missingTopics tells topics that do not exist from those that we cannot see
// for another reason, such as a missing permission.
func missingTopics(metadata *kafka.MetadataResponse) ([]string, error) {
	var missing []string
	for _, topic := range metadata.Topics {
		switch {
		case errors.Is(topic.Error, kafka.UnknownTopicOrPartition):
			missing = append(missing, topic.Name)
		case topic.Error != nil && !errors.Is(topic.Error, kafka.LeaderNotAvailable):
			return nil, fmt.Errorf("look for topic %s: %w", topic.Name, topic.Error)
		}
	}
	return missing, nil
}

// createTopics makes topics whose records may be larger than what producers
// send by default (1 MiB): a dead letter is its original with headers, and would
// be refused for exactly the largest ones.
func (c *Connection) createTopics(ctx context.Context, topics []string, partitions, replicas int) error {
	request := &kafka.CreateTopicsRequest{}
	for _, topic := range topics {
		request.Topics = append(request.Topics, kafka.TopicConfig{
			Topic: topic, NumPartitions: partitions, ReplicationFactor: replicas,
			ConfigEntries: []kafka.ConfigEntry{{
				ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(maxRecord),
			}},
		})
	}
	response, err := c.client.CreateTopics(ctx, request)
	if err != nil {
		return c.explain(err)
	}
	for topic, err := range response.Errors {
		// Another program of ours may have been quicker.
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return nil
}

// listOffsets asks for offsets of a topic's partitions, with one request. Each
// answer may hold an error of its own.
func (c *Connection) listOffsets(
	ctx context.Context, topic string, asked ...kafka.OffsetRequest,
) ([]kafka.PartitionOffsets, error) {
	response, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: asked}})
	if err != nil {
		return nil, c.explain(err)
	}
	return response.Topics[topic], nil
}

// bounds asks for the first record that a partition still has, and for the end
// of its log.
func (c *Connection) bounds(ctx context.Context, topic string, partition int) (first, last int64, err error) {
	offsets, err := c.listOffsets(ctx, topic, kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition))
	if err != nil {
		return 0, 0, err
	}
	for _, p := range offsets {
		if p.Partition == partition {
			return p.FirstOffset, p.LastOffset, c.explain(p.Error)
		}
	}
	return 0, 0, c.explain(kafka.UnknownTopicOrPartition)
}

// ends asks for the ends of the logs of partitions, with one request. One that
// has no leader now is left out.
func (c *Connection) ends(ctx context.Context, topic string, partitions []int) (map[int]int64, error) {
	asked := make([]kafka.OffsetRequest, 0, len(partitions))
	for _, id := range partitions {
		asked = append(asked, kafka.LastOffsetOf(id))
	}
	offsets, err := c.listOffsets(ctx, topic, asked...)
	if err != nil {
		return nil, err
	}
	ends := map[int]int64{}
	for _, p := range offsets {
		if p.Error == nil {
			ends[p.Partition] = p.LastOffset
		}
	}
	return ends, nil
}

// hasRecord says whether a partition has a record at an offset or above, and
// gives it out: a log may go on with nothing but the end of a transaction.
func (c *Connection) hasRecord(ctx context.Context, topic string, partition int, offset int64) bool {
	response, err := c.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: 1 << 20,
		MaxWait: time.Second, IsolationLevel: kafka.ReadCommitted,
	})
	if err != nil || response.Error != nil {
		return false
	}
	for {
		record, err := response.Records.ReadRecord()
		if err != nil {
			return false
		}
		if record.Offset >= offset {
			return true
		}
	}
}
