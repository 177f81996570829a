//go:build realparts

package e2e

import (
	"slices"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// pointPatience is for one point to be passed, with everything that its death
	// and the ones before it have to heal.
	pointPatience = 3 * time.Minute
	// roundPatience is for a round to come to its end. What is not done by then
	// waits for its minute, while the next round goes on.
	roundPatience = 10 * time.Second
	// lastPatience is for all to be done: what a dispatcher had taken and not
	// published waits for a minute.
	lastPatience = 4 * time.Minute
)

// moments lets parts die n times at moments that chance chooses, while a batch
// is issued, issued twice or re-issued.
func (h *crashHouse) moments(n, learners int) {
	h.tb.Helper()
	b := h.issueNew(learners)
	deeds := h.deeds(b, n)
	begun := h.registered()
	times := make([]int, len(deeds))
	for i := range times {
		times[i] = begun + h.rng.IntN(learners*9/10)
	}
	slices.Sort(times)
	for i, deed := range deeds {
		h.until(func() bool { return h.registered() >= times[i] }, glimpse, lastPatience, "the batch stands still")
		<-time.After(time.Duration(h.rng.IntN(50)) * time.Millisecond)
		deed()
	}
}

// deeds are n deaths in any order, with another request for the batch among
// them.
func (h *crashHouse) deeds(b *crashBatch, n int) []func() {
	deeds := h.deaths(n)
	again := []func(){func() {}, func() { h.issueBatch(b) }, func() { h.reIssue(b) }}
	deeds = append(deeds, again[h.rng.IntN(len(again))])
	h.rng.Shuffle(len(deeds), func(i, j int) { deeds[i], deeds[j] = deeds[j], deeds[i] })
	return deeds
}

// deaths chooses who dies: broker and database once each, and programs, of which
// mostly a consumer.
func (h *crashHouse) deaths(n int) []func() {
	deaths := []func(){h.killBroker}
	if h.database != nil {
		deaths = append(deaths, h.killDatabase)
	}
	for len(deaths) < n {
		programs := h.consumers
		if h.rng.IntN(3) == 0 {
			programs = h.apis
		}
		deaths = append(deaths, programs[h.rng.IntN(len(programs))].strike)
	}
	return deaths[:n]
}

func (h *crashHouse) killBroker() {
	h.broker.Kill(h.tb)
	h.partDeaths++
	h.broker.Restart(h.tb)
}

func (h *crashHouse) killDatabase() {
	h.database.Kill(h.tb)
	h.partDeaths++
	h.databaseDeaths++
	<-time.After(time.Duration(h.rng.IntN(3000)) * time.Millisecond) // so that claims may lapse
	h.database.Restart(h.tb)
}

// points lets an API and a consumer die at points, one start after another,
// while there is work of every kind. Other replicas of the API rest meanwhile:
// they would take over what it is to die of.
func (h *crashHouse) points(api, consumer []string) {
	h.tb.Helper()
	h.rest(h.apis[1:])
	defer h.wake(h.apis[1:])
	h.issueNew(learnersOfPoints)
	h.apis[0].arm(h.numbered(api))
	h.consumers[0].arm(h.numbered(consumer))
	mortals := []*ward{h.apis[0], h.consumers[0]}
	provoked, deadline, deaths := time.Time{}, time.Time{}, -1
	for slices.ContainsFunc(mortals, (*ward).mortal) {
		h.tend()
		if now := mortals[0].deaths + mortals[1].deaths; now > deaths {
			deaths, deadline = now, time.Now().Add(pointPatience)
		}
		if time.Since(provoked) > time.Second {
			h.provokeAll(mortals)
			provoked = time.Now()
		}
		require.True(h.tb, time.Now().Before(deadline), "not passed: %q, %q", mortals[0].armed, mortals[1].armed)
		<-time.After(glimpse)
	}
}

// rest lets programs be down for a while, and wake ends that.
func (h *crashHouse) rest(wards []*ward) {
	for _, w := range wards {
		w.disarm()
		w.idle = true
	}
}

func (h *crashHouse) wake(wards []*ward) {
	for _, w := range wards {
		w.idle = false
	}
}

func (h *crashHouse) numbered(points []string) []string {
	numbered := make([]string, len(points))
	for i, point := range points {
		numbered[i] = h.point(point)
	}
	return numbered
}
