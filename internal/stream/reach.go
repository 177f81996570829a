package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Reach is the part of a partition whose records a consumer group may still
// get: those from From on and before To.
type Reach struct {
	Partition int
	From, To  int64
}

// Reaches tells what a group may still get of every partition of a topic: what
// the log has, from the group's committed offset on. The offsets are read before
// the ends of the log, so that no reach is too short.
func (c *Connection) Reaches(ctx context.Context, topic, group string) ([]Reach, error) {
	partitions, err := c.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	committed, err := c.committed(ctx, topic, group, partitions)
	if err != nil {
		return nil, err
	}
	var asked []kafka.OffsetRequest
	for _, p := range partitions {
		asked = append(asked, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	offsets, err := c.listOffsets(ctx, topic, asked...)
	if err != nil {
		return nil, err
	}
	var reaches []Reach
	for _, p := range offsets {
		if p.Error != nil {
			return nil, fmt.Errorf("find the ends of partition %d: %w", p.Partition, c.explain(p.Error))
		}
		reaches = append(reaches, Reach{Partition: p.Partition, From: max(p.FirstOffset, committed[p.Partition]), To: p.LastOffset})
	}
	if len(reaches) != len(partitions) {
		return nil, fmt.Errorf("topic %s has %d partitions, and brokers told the ends of %d", topic, len(partitions), len(reaches))
	}
	return reaches, nil
}

func (c *Connection) partitions(ctx context.Context, topic string) ([]int, error) {
	metadata, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, c.explain(err)
	}
	var partitions []int
	for _, t := range metadata.Topics {
		if t.Error != nil {
			return nil, fmt.Errorf("look for topic %s: %w", t.Name, c.explain(t.Error))
		}
		for _, p := range t.Partitions {
			partitions = append(partitions, p.ID)
		}
	}
	return partitions, nil
}

// committed reads a group's offsets; a partition without one has none below
// which records are passed.
func (c *Connection) committed(ctx context.Context, topic, group string, partitions []int) (map[int]int64, error) {
	response, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: partitions},
	})
	if err == nil {
		err = response.Error
	}
	if err != nil && !errors.Is(err, kafka.GroupIdNotFound) {
		return nil, c.explain(err)
	}
	committed := map[int]int64{}
	if response == nil {
		return committed, nil
	}
	for _, p := range response.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("read the committed offset of partition %d: %w", p.Partition, c.explain(p.Error))
		}
		committed[p.Partition] = p.CommittedOffset
	}
	return committed, nil
}
