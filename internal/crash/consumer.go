//go:build crash

package crash

import (
	"context"

	"github.com/ecreds/issuer/internal/issue"
)

// Worker puts the points of cert-consumer around what a worker works with.
func Worker(c issue.WorkerConfig) issue.WorkerConfig {
	c.Store = workStore{c.Store}
	c.Generator = generator{c.Generator}
	c.Registrar = registrar{c.Registrar}
	c.Notifier = notifier{c.Notifier}
	return c
}

// Bury puts the points around a write to the dead-letter topic.
func Bury(bury issue.Bury) issue.Bury {
	return func(ctx context.Context, letter issue.DeadLetter) (issue.Place, error) {
		defer doing(deadLetter)()
		return bury(ctx, letter)
	}
}

type workStore struct{ store issue.WorkStore }

// Claim implements [issue.WorkStore].
func (s workStore) Claim(ctx context.Context, c issue.Claim) (issue.Issuance, issue.ClaimResult, error) {
	defer doing(claim)()
	return s.store.Claim(ctx, c)
}

// Checkpoint implements [issue.WorkStore].
func (s workStore) Checkpoint(ctx context.Context, checkpoint issue.Checkpoint) error {
	defer doing(writing(checkpoint))()
	return s.store.Checkpoint(ctx, checkpoint)
}

// writing names a write. One that only ends a claim may store a state beside
// it that the run had reached.
func writing(checkpoint issue.Checkpoint) string {
	if checkpoint.Release {
		return writeRelease
	}
	return "write " + string(checkpoint.State)
}

// Adopt implements [issue.WorkStore].
func (s workStore) Adopt(ctx context.Context, standing issue.Job, page issue.FannedOut) error {
	defer doing(writeAdopted)()
	return s.store.Adopt(ctx, standing, page)
}

// IndexPoison implements [issue.WorkStore].
func (s workStore) IndexPoison(ctx context.Context, letter issue.DeadLetter) error {
	defer doing(writePoison)()
	return s.store.IndexPoison(ctx, letter)
}

// TemplateFailed implements [issue.WorkStore].
func (s workStore) TemplateFailed(
	ctx context.Context, use issue.TemplateUse, learner issue.LearnerID,
) (issue.TemplateStanding, error) {
	defer doing(writeDoubt)()
	return s.store.TemplateFailed(ctx, use, learner)
}

type generator struct{ generator issue.Generator }

// Generate implements [issue.Generator].
func (g generator) Generate(ctx context.Context, request issue.GenerateRequest) (issue.Certificate, error) {
	meet(string(request.Recipient.ID))
	defer doing(generate)()
	return g.generator.Generate(ctx, request)
}

type registrar struct{ registrar issue.Registrar }

// Register implements [issue.Registrar].
func (r registrar) Register(ctx context.Context, registration issue.Registration) error {
	defer doing(register)()
	return r.registrar.Register(ctx, registration)
}

type notifier struct{ notifier issue.Notifier }

// Email implements [issue.Notifier].
func (n notifier) Email(ctx context.Context, notification issue.Notification) error {
	defer doing(email)()
	return n.notifier.Email(ctx, notification)
}

// SMS implements [issue.Notifier].
func (n notifier) SMS(ctx context.Context, notification issue.Notification) error {
	defer doing(sms)()
	return n.notifier.SMS(ctx, notification)
}
