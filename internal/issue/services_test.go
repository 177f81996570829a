package issue

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// services are the platform as the worker sees it. The defaults succeed.
type services struct {
	course    func(context.Context, CourseID) (Course, error)
	recipient func(context.Context, LearnerID) (Recipient, error)
	generate  func(context.Context, GenerateRequest) (Certificate, error)
	register  func(context.Context, Registration) error
	email     func(context.Context, Notification) error
	sms       func(context.Context, Notification) error
	enrolment func(context.Context, BatchID, LearnerID) (Enrolment, bool, error)
	place     func(context.Context, Step) (context.Context, func(), error)
}

func (s *services) Course(ctx context.Context, id CourseID) (Course, error) { return s.course(ctx, id) }

func (s *services) Recipient(ctx context.Context, id LearnerID) (Recipient, error) {
	return s.recipient(ctx, id)
}

func (s *services) Generate(ctx context.Context, r GenerateRequest) (Certificate, error) {
	return s.generate(ctx, r)
}
func (s *services) Register(ctx context.Context, r Registration) error { return s.register(ctx, r) }
func (s *services) Email(ctx context.Context, n Notification) error    { return s.email(ctx, n) }
func (s *services) SMS(ctx context.Context, n Notification) error      { return s.sms(ctx, n) }

func (s *services) Learner(ctx context.Context, b BatchID, l LearnerID) (Enrolment, bool, error) {
	return s.enrolment(ctx, b, l)
}

func (s *services) Take(ctx context.Context, step Step) (context.Context, func(), error) {
	return s.place(ctx, step)
}

// unlimited gives everybody a place at once.
func unlimited(ctx context.Context, _ Step) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

const merit = "Merit"

func notifyTemplate() map[string]json.RawMessage {
	return map[string]json.RawMessage{"subject": json.RawMessage(`"Well done"`)}
}

func aCourse() Course {
	return Course{ID: "do_1", Name: "Maths", Templates: []Template{
		{Name: "Other", HTMLTemplate: "https://t/other.zip", Notify: notifyTemplate()},
		{Name: merit, HTMLTemplate: "https://t/merit.zip", Notify: notifyTemplate()},
	}}
}

// certificateNo is the n-th certificate that the platform makes.
func certificateNo(n int) Certificate {
	return Certificate{
		ID: fmt.Sprint("cert-", n), AccessCode: "ABC", PDFURL: "https://f/1.pdf", JSONURL: "https://f/1.json",
		JSONData: json.RawMessage(`{"name" : "Asha Rao"}`),
	}
}

// world is a worker with a ledger and a platform of its own, and the log of what
// was written and called. It lives in a bubble with a clock of its own.
type world struct {
	*services
	t             *testing.T
	store         *memory
	log           []string
	worker        *Worker
	registry      *prometheus.Registry
	lines         *observer.ObservedLogs
	row           *row
	generated     int
	registrations []Registration
	generations   []GenerateRequest
	messages      []Notification
	buried        []DeadLetter
	buryErr       error
}

const process = "process-1"

// inWorld runs a test in a world with one learner queued. Config may be changed
// by the test before its first event.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, services: &services{}, registry: prometheus.NewRegistry()}
		w.store = newMemory(&w.log)
		w.store.living[process] = true
		w.serve()
		core, lines := observer.New(zap.DebugLevel)
		w.lines = lines
		w.worker = NewWorker(WorkerConfig{
			Store: w.store, Courses: w, Recipients: w, Generator: w, Registrar: w, Notifier: w, Enrolments: w, Places: w,
			Process: process, StepAttempts: 3, RetryDelays: []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour},
			CallTimeout: map[Step]time.Duration{
				StepGenerate: 80 * time.Second, StepRegister: 35 * time.Second, StepNotify: 35 * time.Second,
			},
			CrashLimit: 3, ResendInDoubt: true, Zone: time.FixedZone("IST", 5*3600+1800),
			Metrics: NewWorkMetrics(w.registry), Log: zap.New(core),
		})
		w.row = w.store.add("u1")
		w.proven(true)
		test(w)
		for _, line := range lines.All() {
			require.NotContains(t, fmt.Sprint(line.Message, line.ContextMap()), "Asha", "no log holds a name")
		}
	})
}

// proven says whether the template has made a certificate in the job before.
func (w *world) proven(is bool) {
	w.store.fares[TemplateUse{Job: "job-1", Certificate: merit}] = &fare{TemplateStanding: TemplateStanding{Proven: is}}
}

// called notes a call.
func (w *world) called(name string) { w.log = append(w.log, "call "+name) }

// serve sets the default services.
func (w *world) serve() {
	w.course = func(context.Context, CourseID) (Course, error) { return aCourse(), nil }
	w.recipient = func(_ context.Context, id LearnerID) (Recipient, error) {
		return Recipient{ID: id, FirstName: "Asha", LastName: "Rao", RootOrg: "org-1", HasPhone: true}, nil
	}
	w.generate = func(_ context.Context, r GenerateRequest) (Certificate, error) {
		w.called("generate")
		w.generated++
		w.generations = append(w.generations, r)
		return certificateNo(w.generated), nil
	}
	w.register = func(_ context.Context, r Registration) error {
		w.called("register")
		w.registrations = append(w.registrations, r)
		return nil
	}
	w.email = func(_ context.Context, n Notification) error {
		w.called("email")
		w.messages = append(w.messages, n)
		return nil
	}
	w.sms = func(_ context.Context, n Notification) error {
		w.called("sms")
		w.messages = append(w.messages, n)
		return nil
	}
	w.place = unlimited
	w.enrolment = func(_ context.Context, _ BatchID, l LearnerID) (Enrolment, bool, error) {
		return Enrolment{Learner: l, Active: true, Status: 2, CompletedOn: "1566372109689"}, true, nil
	}
}

func (w *world) bury(_ context.Context, letter DeadLetter) (Place, error) {
	w.called("bury")
	if w.buryErr != nil {
		return Place{}, w.buryErr
	}
	w.buried = append(w.buried, letter)
	return Place{Partition: 4, Offset: 44}, nil
}

// work dispatches the row and works its event.
func (w *world) work() Outcome { return w.workEvent(w.store.dispatch(w.row)) }

func (w *world) workEvent(e Event) Outcome { return w.worker.Work(w.t.Context(), e, w.bury) }

// again offers the event that is out once more.
func (w *world) again() Outcome {
	w.row.Number--
	return w.work()
}

// events is how many events ended so.
func (w *world) events(outcome string) int {
	return int(testutil.ToFloat64(w.worker.Metrics.events.WithLabelValues(outcome)))
}

// tries is how many tries of a step ended so.
func (w *world) tries(step Step, verdict Verdict, reason Reason) int {
	return int(testutil.ToFloat64(w.worker.Metrics.attempts.WithLabelValues(string(step), string(verdict), string(reason))))
}

func (w *world) deadLetters(step Step, reason Reason) int {
	return int(testutil.ToFloat64(w.worker.Metrics.deadLetters.WithLabelValues(string(step), string(reason))))
}

func transient(reason Reason) *Failure {
	return &Failure{Verdict: Transient, Reason: reason, HTTPStatus: 500, Message: "went wrong"}
}

func permanent(reason Reason) *Failure {
	return &Failure{Verdict: Permanent, Reason: reason, HTTPStatus: 400, Message: "is wrong"}
}

func outage() *Failure {
	return &Failure{Verdict: Outage, Reason: ReasonUnavailable, HTTPStatus: 503, Message: "is away"}
}

func nopLog() *zap.Logger { return zap.NewNop() }
