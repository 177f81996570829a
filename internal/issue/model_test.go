package issue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// The model: a few learners, some of them asked for again while the first
// certificate is on its way; a log of events that offers again what is not at
// rest; a platform that fails now and then; and a consumer that is killed at
// random operations and started again as a new process. Whatever happens, at
// the end everybody is issued once for each revision, or failed with a dead
// letter that says why.
type model struct {
	*memory
	random     *rand.Rand
	start      time.Time
	bad        LearnerID // his data is bad: every generate fails for good
	resend     bool      // messages in doubt
	faults     int       // of a hundred calls, so many fail
	killsLeft  int
	untilKill  int // operations until the process dies
	dead       chan struct{}
	process    string
	processes  int
	made       int
	killed     int
	inFlight   int // at most, at the kills, in all
	working    int
	failures   int // of generate that were made up
	registered map[LearnerID][]Registration
	messages   map[LearnerID]int
	buried     map[string]DeadLetter
	log        []string
}

const modelWorkers = 3

func newModel(seed uint64) *model {
	m := &model{
		random: rand.New(rand.NewPCG(seed, 7)), registered: map[LearnerID][]Registration{}, messages: map[LearnerID]int{},
		buried: map[string]DeadLetter{}, start: time.Now(),
	}
	m.memory = newMemory(&m.log)
	m.killsLeft = m.random.IntN(7)
	m.resend = m.random.IntN(2) == 0
	m.faults = []int{0, 5, 30}[m.random.IntN(3)]
	for i := range 2 + m.random.IntN(4) {
		r := m.add(LearnerID(fmt.Sprint("u", i)))
		if m.random.IntN(3) == 0 {
			r.last = 2 // a re-issue is asked for already
		}
	}
	if m.random.IntN(4) == 0 {
		m.bad = "u1"
	}
	return m
}

// restart starts a new process, which will die after some operations.
func (m *model) restart() {
	m.processes++
	m.process, m.dead = fmt.Sprint("process-", m.processes), make(chan struct{})
	m.untilKill = -1
	if m.killsLeft > 0 {
		m.killsLeft--
		m.untilKill = 1 + m.random.IntN(40)
	}
	m.living = map[string]bool{m.process: true}
}

// live is one operation of a process with the world outside. It may be the last:
// then the process dies before it or after it, with everything it had in memory.
// Goexit ends the goroutine without a word, as a kill does.
func (m *model) live(process string, operation func()) {
	m.mu.Lock()
	if process != m.process {
		m.mu.Unlock()
		runtime.Goexit()
	}
	last := false
	if m.untilKill > 0 {
		m.untilKill--
		last = m.untilKill == 0
	}
	before := last && m.random.IntN(2) == 0
	if last {
		m.log = append(m.log, fmt.Sprintf("%s dies, before: %v", process, before))
		m.killed++
		m.inFlight += m.working
		m.process = "" // nobody else of it does anything any more
		close(m.dead)
	}
	m.mu.Unlock()
	if !before {
		operation()
	}
	if last {
		runtime.Goexit()
	}
}

// mortal is a store and a platform as one process sees them.
type mortal struct {
	*model
	process string
}

func (p mortal) Claim(ctx context.Context, c Claim) (is Issuance, result ClaimResult, err error) {
	p.live(p.process, func() { is, result, err = p.memory.Claim(ctx, c) })
	return is, result, err
}

func (p mortal) Checkpoint(ctx context.Context, c Checkpoint) (err error) {
	p.live(p.process, func() {
		if err = p.fault("checkpoint"); err == nil {
			err = p.memory.Checkpoint(ctx, c)
		}
	})
	return err
}

// fault makes up a failure now and then.
func (m *model) fault(of string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.random.IntN(100) >= m.faults {
		return nil
	}
	if of == "generate" {
		m.failures++
	}
	switch m.random.IntN(4) {
	case 0:
		return outage()
	case 1:
		return errors.New("no edge has classified it")
	default:
		return transient(ReasonTimeout)
	}
}

func (p mortal) Course(context.Context, CourseID) (course Course, err error) {
	p.live(p.process, func() { course, err = aCourse(), p.fault("course") })
	return course, err
}

func (p mortal) Recipient(_ context.Context, id LearnerID) (r Recipient, err error) {
	p.live(p.process, func() { r, err = Recipient{ID: id, FirstName: "Asha", HasPhone: true}, p.fault("recipient") })
	return r, err
}

func (p mortal) Generate(_ context.Context, r GenerateRequest) (c Certificate, err error) {
	p.live(p.process, func() {
		if r.Recipient.ID == p.bad {
			err = permanent(ReasonBadRequest)
			return
		}
		err = p.fault("generate")
		p.mu.Lock()
		defer p.mu.Unlock()
		p.made++ // even when its answer is lost
		c = certificateNo(p.made)
	})
	return c, err
}

func (p mortal) Register(_ context.Context, r Registration) (err error) {
	p.live(p.process, func() {
		err = p.fault("register")
		p.mu.Lock()
		defer p.mu.Unlock()
		p.log = append(p.log, fmt.Sprintf("register %s %s for %q: %v", r.Learner, r.Certificate.ID, r.OldID, err))
		r.Repeated = false                                           // is not sent
		p.registered[r.Learner] = append(p.registered[r.Learner], r) // even when its answer is lost
	})
	return err
}

func (p mortal) Email(_ context.Context, n Notification) (err error) {
	p.live(p.process, func() {
		if err = p.fault("email"); err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.messages[n.Learner]++
		}
	})
	return err
}

func (p mortal) SMS(ctx context.Context, n Notification) error { return p.Email(ctx, n) }

func (p mortal) Take(ctx context.Context, step Step) (context.Context, func(), error) {
	return unlimited(ctx, step)
}

func (p mortal) Learner(context.Context, BatchID, LearnerID) (Enrolment, bool, error) {
	return Enrolment{}, false, errors.New("every event of the model is numbered")
}

func (p mortal) bury(_ context.Context, letter DeadLetter) (place Place, err error) {
	p.live(p.process, func() {
		if err = p.fault("bury"); err != nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.buried[letter.ID] = letter
	})
	return place, err
}

// dueEvents dispatches what is due, as the dispatcher would.
func (m *model) dueEvents() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	var events []Event
	for _, id := range m.order() {
		if r := m.rows[id]; !r.out && !r.due.IsZero() && !r.due.After(time.Now()) {
			events = append(events, m.dispatch(r))
		}
	}
	return events
}

func (m *model) order() []IssuanceID {
	ids := make([]IssuanceID, 0, len(m.rows))
	for id := range m.rows {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (m *model) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if r.out || !r.State.Final() {
			return false
		}
	}
	return true
}

// stuck says that it takes longer than any chain of retries does.
func (m *model) stuck() bool { return time.Since(m.start) > 24*time.Hour }

// topic holds the events that are not at rest; one that is being worked is not
// in it, and comes back when its process dies.
type topic struct {
	mu     sync.Mutex
	events []Event
	begun  map[string]Event
}

func (t *topic) next() (Event, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.events) == 0 {
		return Event{}, false
	}
	event := t.events[0]
	t.events = t.events[1:]
	t.begun[event.MID+string(event.Issuance)] = event
	return event, true
}

func (t *topic) put(events ...Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, events...)
}

func (t *topic) end(event Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.begun, event.MID+string(event.Issuance))
}

// offerAgain puts back what a dead process was working.
func (t *topic) offerAgain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, event := range t.begun {
		t.events = append(t.events, event)
	}
	slices.SortFunc(t.events, func(a, b Event) int { return strings.Compare(string(a.Issuance), string(b.Issuance)) })
	t.begun = map[string]Event{}
}

// run runs processes, one after another, until nothing is left to do.
func (m *model) run(metrics *WorkMetrics) error {
	queue := &topic{begun: map[string]Event{}}
	for !m.over() {
		if m.stuck() {
			return errors.New("somebody is lost: nothing moves any more")
		}
		m.restart()
		queue.offerAgain()
		m.runProcess(queue, metrics)
	}
	return nil
}

func (m *model) runProcess(queue *topic, metrics *WorkMetrics) {
	process, dead := m.process, m.dead
	me := mortal{m, process}
	worker := NewWorker(WorkerConfig{
		Store: me, Courses: me, Recipients: me, Generator: me, Registrar: me, Notifier: me, Enrolments: me, Places: me,
		Process: process, StepAttempts: 2, RetryDelays: slices.Repeat([]time.Duration{30 * time.Second}, 20),
		CallTimeout:   map[Step]time.Duration{StepGenerate: 80 * time.Second, StepRegister: 35 * time.Second, StepNotify: 35 * time.Second},
		ResendInDoubt: m.resend, Zone: time.UTC, Metrics: metrics, Log: nopLog(),
	})
	var lanes sync.WaitGroup
	for range modelWorkers {
		lanes.Go(func() { m.lane(worker, me, queue, dead) })
	}
	lanes.Wait()
}

// lane works events until its process dies or all is over.
func (m *model) lane(worker *Worker, me mortal, queue *topic, dead <-chan struct{}) {
	working := 0
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.working -= working
	}()
	for !m.over() && !m.stuck() {
		select {
		case <-dead:
			return
		default:
		}
		queue.put(m.dueEvents()...)
		event, ok := queue.next()
		if !ok {
			time.Sleep(time.Second) //nolint:forbidigo // fake clock
			continue
		}
		m.mu.Lock()
		m.working, working = m.working+1, 1
		m.mu.Unlock()
		outcome := worker.Work(context.Background(), event, me.bury)
		m.mu.Lock()
		m.working, working = m.working-1, 0
		alive := m.process == me.process
		m.mu.Unlock()
		if !alive {
			return // its commit is lost: the event comes again
		}
		if !outcome.AtRest {
			time.Sleep(outcome.HoldFor) //nolint:forbidigo // fake clock
		}
		queue.end(event)
		if !outcome.AtRest {
			queue.put(event)
		}
	}
}

// check says what is wrong at the end.
func (m *model) check() error {
	revisions := 0
	for _, r := range m.rows {
		revisions += r.last
		if r.Learner == m.bad {
			if err := m.checkBad(r); err != nil {
				return err
			}
			continue
		}
		if err := m.checkIssued(r); err != nil {
			return err
		}
	}
	if len(m.buried) != len(m.letters) {
		return fmt.Errorf("%d dead letters in the topic, %d in the index", len(m.buried), len(m.letters))
	}
	// Calls repeated are no more than events in flight at the kills, and writes
	// that failed.
	if m.faults == 0 && m.bad == "" && m.made > revisions+m.inFlight {
		return fmt.Errorf("%d certificates made for %d revisions and %d events in flight at %d kills",
			m.made, revisions, m.inFlight, m.killed)
	}
	return nil
}

func (m *model) checkBad(r *row) error {
	if r.State != Failed || len(m.registered[r.Learner]) > 0 {
		return fmt.Errorf("%s is %s and registered %d times, though his data is bad", r.Learner, r.State, len(m.registered[r.Learner]))
	}
	for revision := range r.last {
		id := fmt.Sprintf("%s-%d-%d", r.ID, revision+1, revision)
		if m.letters[id].Reason != ReasonBadRequest || m.buried[id].Reason != ReasonBadRequest {
			return fmt.Errorf("%s has no dead letter %s", r.Learner, id)
		}
	}
	return nil
}

func (m *model) checkIssued(r *row) error {
	if r.State != Notified || r.Revision != r.last {
		return fmt.Errorf("%s is %s at revision %d of %d: %s", r.Learner, r.State, r.Revision, r.last, r.message)
	}
	var ids []string
	bodies := map[string]Registration{}
	for _, registration := range m.registered[r.Learner] {
		id := registration.Certificate.ID
		if first, again := bodies[id]; again {
			if fmt.Sprint(first) != fmt.Sprint(registration) {
				return fmt.Errorf("%s: certs/add of %s was not repeated identically", r.Learner, id)
			}
			continue
		}
		bodies[id] = registration
		if len(ids) > 0 && registration.OldID != ids[len(ids)-1] {
			return fmt.Errorf("%s: %s replaces %q", r.Learner, id, registration.OldID)
		}
		ids = append(ids, id)
	}
	if len(ids) != r.last {
		return fmt.Errorf("%s: %d certificates registered for %d revisions: %v", r.Learner, len(ids), r.last, ids)
	}
	// In doubt a message is sent twice, or not at all, as the operator chose.
	if told := m.messages[r.Learner]; m.resend && told < 2*r.last || !m.resend && told > 2*r.last {
		return fmt.Errorf("%s was told %d times of %d certificates", r.Learner, told, r.last)
	}
	finished := slices.DeleteFunc(slices.Clone(r.history), func(line string) bool { return !strings.HasPrefix(line, "registered:") })
	if len(finished) != r.last {
		return fmt.Errorf("%s: history %v", r.Learner, r.history)
	}
	return nil
}

func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	seeds, shards := uint64(2400), uint64(4)
	if testing.Short() {
		seeds = 400
	}
	first := rand.Uint64N(1 << 40)
	for shard := range shards {
		t.Run(fmt.Sprint("shard ", shard), func(t *testing.T) {
			t.Parallel()
			metrics := NewWorkMetrics(prometheus.NewRegistry())
			killed := 0
			for seed := first + shard; seed < first+seeds; seed += shards {
				killed += killAtRandom(t, seed, metrics)
			}
			require.Greater(t, killed, int(seeds/shards), "the processes of the model do die")
		})
	}
}

// killAtRandom runs the model once and returns how many processes were killed.
// A failing seed is repeated by calling it with that seed alone.
func killAtRandom(t *testing.T, seed uint64, metrics *WorkMetrics) int {
	t.Helper()
	var m *model
	var err error
	synctest.Test(t, func(*testing.T) {
		m = newModel(seed)
		if err = m.run(metrics); err == nil {
			err = m.check()
		}
	})
	if err != nil {
		require.NoError(t, err, "seed %d\n%s", seed, strings.Join(m.log, "\n"))
	}
	return m.killed
}
