package stream

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// commitLoop commits regularly while a generation is in force.
func (c *Consumer) commitLoop(ended context.Context, generation *kafka.Generation) {
	ticker := time.NewTicker(commitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ended.Done():
			return
		case <-ticker.C:
			c.commit(ended, generation)
		}
	}
}

// commit commits what is news, fenced by generation and member: the broker
// refuses it when the partitions are not ours any more.
func (c *Consumer) commit(ctx context.Context, generation *kafka.Generation) {
	if generation == nil {
		return
	}
	c.commits.Lock()
	defer c.commits.Unlock()
	partitions, offsets := c.toCommit(generation)
	if len(offsets) == 0 {
		return
	}
	// The end of a generation is a time to commit, not to be cut short.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	response, err := c.conn.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: generation.GroupID, GenerationID: int(generation.ID), MemberID: generation.MemberID,
		Topics: map[string][]kafka.OffsetCommit{c.Topic: offsets},
	})
	if err != nil {
		c.Log.Warn("cannot commit; trying again", zap.Error(c.conn.explain(err)))
		return
	}
	c.accept(response.Topics[c.Topic], partitions, offsets)
}

func (c *Consumer) toCommit(generation *kafka.Generation) (map[int]*partition, []kafka.OffsetCommit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return nil, nil
	}
	held := map[int]*partition{}
	var offsets []kafka.OffsetCommit
	for id, p := range c.partitions {
		held[id] = p
		if offset, news := p.tracker.toCommit(); news || offset != uncommitted && time.Since(p.committed) > c.timing.refresh {
			offsets = append(offsets, kafka.OffsetCommit{Partition: id, Offset: offset})
		}
	}
	return held, offsets
}

// accept takes note of what the broker took. The call itself succeeds even
// when it refuses a partition, so each answer is looked at.
func (c *Consumer) accept(answers []kafka.OffsetCommitPartition, held map[int]*partition, offsets []kafka.OffsetCommit) {
	taken := map[int]bool{}
	for _, answer := range answers {
		taken[answer.Partition] = answer.Error == nil
		if answer.Error != nil && !generationOver(answer.Error) {
			c.Log.Warn("a commit was refused; trying again", zap.Int("partition", answer.Partition), zap.Error(answer.Error))
		}
	}
	for _, o := range offsets {
		if taken[o.Partition] {
			held[o.Partition].tracker.commit(o.Offset)
			held[o.Partition].committed = time.Now()
		}
	}
}

// generationOver says that the group has moved on: an ordinary end, after
// which the next generation or the next owner commits.
func generationOver(err error) bool {
	return errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.UnknownMemberId) ||
		errors.Is(err, kafka.RebalanceInProgress)
}
