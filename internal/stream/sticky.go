package stream

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// sticky assigns the partitions of a topic evenly, to within one, and leaves
// each where it is as far as that allows: what moves is fetched and begun again
// by its next owner. Each member says with its join what it owns.
type sticky struct {
	topic string
	owned func() claim
}

// claim is what a member owned in a generation.
type claim struct {
	Generation int32 `json:"generation"`
	Partitions []int `json:"partitions"`
}

// claim is what this process says with its next join.
func (c *Consumer) claim() claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == nil {
		return claim{}
	}
	owned := claim{Generation: c.generation.ID}
	for id := range c.partitions {
		owned.Partitions = append(owned.Partitions, id)
	}
	slices.Sort(owned.Partitions)
	return owned
}

// ProtocolName is what members vote for; it names the form of the claims, too.
func (sticky) ProtocolName() string { return "ecreds-sticky" }

// UserData is called for each join.
func (s sticky) UserData() ([]byte, error) { return json.Marshal(s.owned()) }

// share is what one member gets.
type share struct {
	member     string
	generation int32
	partitions []int
}

// AssignGroups is called in the member that leads the group. All members work
// the one topic.
func (s sticky) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	free := map[int]bool{}
	for _, p := range partitions {
		if p.Topic == s.topic {
			free[p.ID] = true
		}
	}
	shares := make([]*share, 0, len(members))
	for _, m := range members {
		shares = append(shares, claimed(m))
	}
	total := len(free)
	settle(shares, free)
	level(shares, free, total)
	assignments := kafka.GroupMemberAssignments{}
	for _, got := range shares {
		assignments[got.member] = map[string][]int{s.topic: got.partitions}
	}
	return assignments
}

// claimed reads what a member says. One that says nothing, or nothing that makes
// sense, owns nothing.
func claimed(m kafka.GroupMember) *share {
	var c claim
	if json.Unmarshal(m.UserData, &c) != nil {
		c = claim{}
	}
	return &share{member: m.ID, generation: c.Generation, partitions: c.Partitions}
}

// settle leaves each partition to one claim at most: the one of the latest
// generation, since an older one is of a member that missed something.
func settle(shares []*share, free map[int]bool) {
	slices.SortFunc(shares, func(a, b *share) int {
		return cmp.Or(cmp.Compare(b.generation, a.generation), cmp.Compare(a.member, b.member))
	})
	for _, s := range shares {
		var kept []int
		for _, id := range s.partitions {
			if free[id] {
				delete(free, id)
				kept = append(kept, id)
			}
		}
		slices.Sort(kept)
		s.partitions = kept
	}
}

// level takes what a member has too many, and deals what is free. Where the
// partitions do not divide, the members that have most get the one more.
func level(shares []*share, free map[int]bool, total int) {
	if len(shares) == 0 {
		return
	}
	slices.SortFunc(shares, func(a, b *share) int {
		return cmp.Or(cmp.Compare(len(b.partitions), len(a.partitions)), cmp.Compare(a.member, b.member))
	})
	quota := func(i int) int {
		if i < total%len(shares) {
			return total/len(shares) + 1
		}
		return total / len(shares)
	}
	for i, s := range shares {
		keep := min(len(s.partitions), quota(i))
		for _, id := range s.partitions[keep:] {
			free[id] = true
		}
		s.partitions = s.partitions[:keep]
	}
	rest := slices.Sorted(maps.Keys(free))
	for i, s := range shares {
		n := quota(i) - len(s.partitions)
		s.partitions = append(s.partitions, rest[:n]...)
		rest = rest[n:]
	}
}
