package stream

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// FuzzStickyAssignments has members come and go, some of them with claims that
// are old or that make no sense.
func FuzzStickyAssignments(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 3))
		n := random.IntN(40)
		claims := map[string]claim{}
		for generation := range int32(20) {
			n += random.IntN(5) / 4 // now and then the topic grows
			comeAndGo(random, claims, generation)
			members := members(claims)
			assigned := assign(t, members, n)
			requireBalanced(t, assigned, len(claims), n)
			require.Equal(t, mostKept(claims, n), kept(claims, assigned), "no partition moves without need")
			random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
			require.Equal(t, assigned, assign(t, members, n), "the order of the members means nothing")
			for id := range claims {
				claims[id] = claim{Generation: generation, Partitions: assigned[id]}
			}
		}
	})
}

func comeAndGo(random *rand.Rand, claims map[string]claim, generation int32) {
	for _, id := range slices.Sorted(maps.Keys(claims)) {
		if random.IntN(4) == 0 {
			delete(claims, id)
		}
	}
	for i := range random.IntN(4) {
		claims[fmt.Sprintf("%d-%d-%d", random.IntN(10), generation, i)] = claim{}
	}
	if random.IntN(3) == 0 { // one that was away for a while
		claims["stale"] = claim{Generation: generation - 3, Partitions: []int{random.IntN(10), random.IntN(60), 1000}}
	}
}

func members(claims map[string]claim) []kafka.GroupMember {
	var members []kafka.GroupMember
	for _, id := range slices.Sorted(maps.Keys(claims)) {
		data, _ := sticky{owned: func() claim { return claims[id] }}.UserData()
		if claims[id].Partitions == nil {
			data = []byte(`{"generation":"?`) // from who knows whom
		}
		members = append(members, kafka.GroupMember{ID: id, Topics: []string{topic}, UserData: data})
	}
	return members
}

func assign(t *testing.T, members []kafka.GroupMember, n int) map[string][]int {
	t.Helper()
	partitions := []kafka.Partition{{Topic: "another", ID: 77}}
	for id := range n {
		partitions = append(partitions, kafka.Partition{Topic: topic, ID: id})
	}
	assigned := map[string][]int{}
	for id, topics := range (sticky{topic: topic}).AssignGroups(members, partitions) {
		assigned[id] = slices.Sorted(slices.Values(topics[topic]))
	}
	return assigned
}

func requireBalanced(t *testing.T, assigned map[string][]int, members, n int) {
	t.Helper()
	require.Len(t, assigned, members)
	var all []int
	for _, ids := range assigned {
		all = append(all, ids...)
		require.InDelta(t, float64(n)/float64(members), len(ids), 0.999)
	}
	slices.Sort(all)
	if members > 0 {
		require.Len(t, all, n)
		require.Len(t, slices.Compact(all), n, "each partition has one owner")
	}
}

// valid is what members own by right: each partition belongs to its latest
// owner.
func valid(claims map[string]claim, n int) map[string][]int {
	owner := map[int]string{}
	for _, id := range slices.Sorted(maps.Keys(claims)) {
		for _, p := range claims[id].Partitions {
			if other, taken := owner[p]; p < n && (!taken || claims[other].Generation < claims[id].Generation) {
				owner[p] = id
			}
		}
	}
	owned := map[string][]int{}
	for p, id := range owner {
		owned[id] = append(owned[id], p)
	}
	return owned
}

// mostKept is how many partitions can stay where they are: of each member as
// many as it may have, and one more where they do not divide.
func mostKept(claims map[string]claim, n int) int {
	if len(claims) == 0 {
		return 0
	}
	least, more, most := n/len(claims), n%len(claims), 0
	for _, owned := range valid(claims, n) {
		most += min(len(owned), least)
		if len(owned) > least && more > 0 {
			most++
			more--
		}
	}
	return most
}

func kept(claims map[string]claim, assigned map[string][]int) (kept int) {
	n := 0
	for _, ids := range assigned {
		n += len(ids)
	}
	for id, owned := range valid(claims, n) {
		for _, p := range owned {
			if slices.Contains(assigned[id], p) {
				kept++
			}
		}
	}
	return kept
}

func TestT7PartitionsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	const partitions = 12
	cluster := newBroker(t, partitions)
	a := join(t, connect(t, cluster), Config{Handle: atOnce})
	a.requireAssigned(t, partitions)
	b := join(t, connect(t, cluster), Config{Handle: atOnce})
	b.requireAssigned(t, partitions/2)
	a.requireAssigned(t, partitions/2)
	hadA, hadB := a.owned(), b.owned()
	c := join(t, connect(t, cluster), Config{Handle: atOnce})
	c.requireAssigned(t, partitions/3)
	a.requireAssigned(t, partitions/3)
	b.requireAssigned(t, partitions/3)
	requireSubset(t, hadA, a.owned())
	requireSubset(t, hadB, b.owned())
	hadA, hadB = a.owned(), b.owned()
	c.stop(t)
	a.requireAssigned(t, partitions/2)
	b.requireAssigned(t, partitions/2)
	requireSubset(t, a.owned(), hadA)
	requireSubset(t, b.owned(), hadB)
}

func requireSubset(t *testing.T, of, these map[int]bool) {
	t.Helper()
	for id := range these {
		require.True(t, of[id], "partition %d moved", id)
	}
}

func TestT7GroupWithAMemberThatIsNotSticky(t *testing.T) {
	t.Parallel()
	const partitions = 6
	cluster := newBroker(t, partitions)
	conn, other := connect(t, cluster), connect(t, cluster)
	m := join(t, conn, Config{Handle: atOnce})
	m.requireAssigned(t, partitions)
	old, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{ID: group, Brokers: other.brokers, Topics: []string{topic}})
	require.NoError(t, err)
	generation, err := old.Next(t.Context())
	require.NoError(t, err)
	require.Len(t, generation.Assignments[topic], partitions/2)
	m.requireAssigned(t, partitions/2)
	require.NoError(t, old.Close())
	m.requireAssigned(t, partitions)
}
