package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Connection is how every part reaches Kafka. The client library has two ways
// of its own, a dialer and a transport; they are set up here once and alike.
type Connection struct {
	brokers   []string
	dialer    *kafka.Dialer
	transport *kafka.Transport
	client    *kafka.Client
}

const (
	dialTimeout = 5 * time.Second
	// metadataTTL is how long a moved partition leader may stay unnoticed.
	metadataTTL = 2 * time.Second
	// requestTimeout bounds one administrative request.
	requestTimeout = 10 * time.Second
)

// NewConnection prepares a connection to brokers given as host:port. Nothing is
// dialled yet.
func NewConnection(brokers []string, clientID string) (*Connection, error) {
	for _, broker := range brokers {
		if _, _, err := net.SplitHostPort(broker); err != nil {
			return nil, fmt.Errorf("%q is not a broker address: it must be host:port", broker)
		}
	}
	if len(brokers) == 0 {
		return nil, errors.New("no broker is given")
	}
	transport := &kafka.Transport{ClientID: clientID, DialTimeout: dialTimeout, MetadataTTL: metadataTTL}
	return &Connection{
		brokers:   brokers,
		dialer:    &kafka.Dialer{ClientID: clientID, Timeout: dialTimeout, DualStack: true},
		transport: transport,
		client:    &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport, Timeout: requestTimeout},
	}, nil
}

// Close drops the connections that are kept for reuse.
func (c *Connection) Close() { c.transport.CloseIdleConnections() }

// Ping says whether some broker answers.
func (c *Connection) Ping(ctx context.Context) error {
	_, err := c.client.Metadata(ctx, &kafka.MetadataRequest{})
	return c.explain(err)
}

// explain names the brokers in an error that otherwise may only say "EOF".
func (c *Connection) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kafka at %s: %w", strings.Join(c.brokers, ","), err)
}

// EnsureTopics checks that topics exist. With create, the missing ones are
// created with this many partitions and as many replicas as the cluster has
// brokers, at most three; otherwise a missing topic is an error that names it.
func (c *Connection) EnsureTopics(ctx context.Context, topics []string, partitions int, create bool) error {
	metadata, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return c.explain(err)
	}
	missing := missingTopics(metadata, topics)
	if len(missing) == 0 {
		return nil
	}
	if !create {
		return fmt.Errorf("topic %s does not exist; create it, or set TOPICS_CREATE=true", strings.Join(missing, ", "))
	}
	return c.createTopics(ctx, missing, partitions, min(len(metadata.Brokers), 3))
}

func missingTopics(metadata *kafka.MetadataResponse, topics []string) []string {
	return slices.DeleteFunc(slices.Clone(topics), func(topic string) bool {
		return slices.ContainsFunc(metadata.Topics, func(t kafka.Topic) bool {
			return t.Name == topic && t.Error == nil && len(t.Partitions) > 0
		})
	})
}

func (c *Connection) createTopics(ctx context.Context, topics []string, partitions, replicas int) error {
	request := &kafka.CreateTopicsRequest{}
	for _, topic := range topics {
		request.Topics = append(request.Topics, kafka.TopicConfig{
			Topic: topic, NumPartitions: partitions, ReplicationFactor: replicas,
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
