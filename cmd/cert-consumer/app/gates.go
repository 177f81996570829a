package app

import (
	"context"

	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// gates stand before the services that a consumer calls.
type gates struct{ cert, learner, notify, content, enrolment *sunbird.Gate }

var _ issue.Places = gates{}

// gates makes them. While a service is away that no certificate can do without,
// fetching pauses: what is fetched could only be held.
func (a *App) gates() gates {
	metrics := sunbird.NewMetrics(a.registry)
	gate := func(downstream sunbird.Downstream, service string, needed bool) *sunbird.Gate {
		return sunbird.NewGate(sunbird.GateConfig{
			Downstream: downstream, Service: service, Concurrency: a.config.Concurrency, Metrics: metrics,
			OnChange: func(away bool) { a.serviceChanged(downstream, needed, away) },
		})
	}
	return gates{
		cert:      gate(sunbird.Cert, "cert-service", true),
		learner:   gate(sunbird.Learner, "learner-service", true),
		notify:    gate(sunbird.Notify, "notifier", false),
		content:   gate(sunbird.Content, "content-service", true),
		enrolment: gate(sunbird.Enrolment, "elasticsearch", false),
	}
}

// Take implements [issue.Places].
func (g gates) Take(ctx context.Context, step issue.Step) (context.Context, func(), error) {
	switch step {
	case issue.StepGenerate:
		return g.cert.Take(ctx)
	case issue.StepRegister:
		return g.learner.Take(ctx)
	case issue.StepNotify:
		return g.notify.Take(ctx)
	default: // it calls no service that stands behind a gate
		return ctx, func() {}, nil
	}
}

// allowed is how many calls of steps all gates let through now.
func (g gates) allowed() int { return g.cert.Limit() + g.learner.Limit() + g.notify.Limit() }

// serviceChanged tells that a service has gone away, or has come back. Without a
// needed one nothing is fetched but a probe now and then.
func (a *App) serviceChanged(downstream sunbird.Downstream, needed, away bool) {
	log := a.log.With(zap.String("downstream", string(downstream)))
	if away {
		log.Warn("a service is away; its events wait without spending attempts", zap.Bool("fetching_pauses", needed))
	} else {
		log.Info("a service is back")
	}
	switch {
	case !needed:
	case away:
		a.consumer.Pause(string(downstream))
	default:
		a.consumer.Resume(string(downstream))
	}
}
