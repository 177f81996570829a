package issue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// step is one outward call on the way of a certificate.
type step struct {
	name Step
	// ongoing is stored before the call, finished with its result.
	ongoing, finished State
	// pending says whether the step still has to be done.
	pending func(r *run) bool
	// needless, when set, says that there is nothing to call after all and
	// leaves that in the coming write.
	needless func(r *run) bool
	// mark, when set, puts into the coming write what the call is about to do.
	mark func(r *run)
	// call makes the call and leaves its result in the coming write.
	call func(r *run, ctx context.Context) error
}

// wayOfACertificate lists the steps in order. The two channels of a
// notification are two steps of one name: each has a state of its own.
func wayOfACertificate() []step {
	return []step{
		{
			name: StepGenerate, ongoing: Generating, finished: Generated,
			pending: func(r *run) bool { return r.issuance.Made == nil },
			call:    (*run).generate,
		},
		{
			name: StepRegister, ongoing: Registering, finished: Registered,
			pending: func(r *run) bool { return r.issuance.RegisteredAt.IsZero() },
			call:    (*run).register,
		},
		{
			name: StepNotify, ongoing: Notifying, finished: Notifying,
			pending:  func(r *run) bool { return r.unsent(r.email()) },
			needless: func(r *run) bool { return r.nothingToSend(r.email(), true) },
			mark:     func(r *run) { r.email().reach(ChannelSending) },
			call:     func(r *run, ctx context.Context) error { return r.announce(ctx, r.email(), r.Notifier.Email) },
		},
		{
			name: StepNotify, ongoing: Notifying, finished: Notifying,
			pending:  func(r *run) bool { return r.unsent(r.sms()) },
			needless: func(r *run) bool { return r.nothingToSend(r.sms(), r.recipient.HasPhone) },
			mark:     func(r *run) { r.sms().reach(ChannelSending) },
			call:     func(r *run, ctx context.Context) error { return r.announce(ctx, r.sms(), r.Notifier.SMS) },
		},
	}
}

func (r *run) generate(ctx context.Context) error {
	template, err := r.template()
	if err != nil {
		return err
	}
	made, err := r.Generator.Generate(ctx, GenerateRequest{
		Course: *r.course, Template: template, Batch: r.issuance.Batch, Recipient: *r.recipient, IssuedOn: r.issuedOn(),
	})
	if err != nil {
		return err
	}
	r.issuance.Made, r.change.Made = &made, &made
	r.praiseTemplate()
	return nil
}

func (r *run) register(ctx context.Context) error {
	err := r.Registrar.Register(ctx, Registration{
		Learner: r.issuance.Learner, Course: r.issuance.Course, Batch: r.issuance.Batch,
		Certificate: *r.issuance.Made, OldID: r.issuance.OldID, Repeated: r.issuance.Attempts > 1,
	})
	if errors.Is(err, ErrOldID) {
		return r.replaceAnother(ctx, AsFailure(err))
	}
	if err != nil {
		return err
	}
	r.issuance.RegisteredAt, r.change.Registered = time.Now(), true
	return nil
}

// replaceAnother chooses another certificate to be replaced when the service
// refuses the one that was: the newest that the enrolment shows, and after that
// none. The next try stores it before it is sent.
func (r *run) replaceAnother(ctx context.Context, refused *Failure) error {
	enrolment, _, err := r.Enrolments.Learner(ctx, r.issuance.Batch, r.issuance.Learner)
	if err != nil {
		return err
	}
	next := ""
	if held, ok := enrolment.held(r.issuance.Certificate); ok && !slices.Contains(r.refused, held.ID) && held.ID != r.issuance.OldID {
		next = held.ID
	}
	r.refused = append(r.refused, r.issuance.OldID)
	r.issuance.OldID, r.change.OldID = next, &next
	again := *refused
	again.Verdict = Transient
	return &again
}

// channel is one way to reach a learner: where it stands, and where the coming
// write says it stands.
type channel struct{ state, change *ChannelState }

func (r *run) email() channel { return channel{&r.issuance.Email, &r.change.Email} }
func (r *run) sms() channel   { return channel{&r.issuance.SMS, &r.change.SMS} }

func (c channel) reach(state ChannelState) { *c.state, *c.change = state, state }

func (c channel) settled() bool { return *c.state == ChannelSent || *c.state == ChannelNone }

// unsent decides whether a channel is still to be sent. One that was being
// sent when its process died is in doubt: it is sent again or given up for
// sent, as the operator chose.
func (r *run) unsent(c channel) bool {
	if *c.state == ChannelSending {
		r.Log.Warn("a notification was in doubt after a crash", r.fields()...)
		if !r.ResendInDoubt {
			c.reach(ChannelSent)
		}
	}
	return !c.settled()
}

// nothingToSend settles a channel that has no message or no address.
func (r *run) nothingToSend(c channel, address bool) bool {
	template, ok := r.course.Template(r.issuance.Certificate)
	if ok && len(template.Notify) > 0 && address {
		return false
	}
	c.reach(ChannelNone)
	return true
}

// announce sends one channel. That the learner has no address for it is no
// failure.
func (r *run) announce(ctx context.Context, c channel, send func(context.Context, Notification) error) error {
	template, err := r.template()
	if err != nil {
		return err
	}
	err = send(ctx, Notification{
		Learner: r.issuance.Learner, GivenName: r.recipient.GivenName(), Course: *r.course, Template: template,
		IssuedOn: r.issuedOn(),
	})
	switch {
	case err == nil:
		c.reach(ChannelSent)
	case AsFailure(err).Reason == ReasonNoAddress:
		c.reach(ChannelNone)
	default:
		return err
	}
	return nil
}

// withoutNotification says why nobody was notified; "" = somebody was.
func (r *run) withoutNotification(ctx context.Context) Reason {
	if r.issuance.Email == ChannelSent || r.issuance.SMS == ChannelSent {
		return ""
	}
	course := r.course
	if course == nil { // a run before this one settled the channels
		read, err := r.Courses.Course(context.WithoutCancel(ctx), r.issuance.Course)
		if err != nil {
			return ReasonNoTemplate
		}
		course = &read
	}
	if template, ok := course.Template(r.issuance.Certificate); ok && len(template.Notify) > 0 {
		return ReasonNoAddress
	}
	return ReasonNoTemplate
}

func (r *run) template() (Template, error) {
	template, ok := r.course.Template(r.issuance.Certificate)
	if !ok {
		return Template{}, &Failure{
			Verdict: Permanent, Reason: ReasonNoTemplate,
			Message: fmt.Sprintf("course %s has no template named %q any more", r.issuance.Course, r.issuance.Certificate),
		}
	}
	return template, nil
}

// issuedOn is the day on the certificate: that of the completion, where the
// certificate's readers live.
func (r *run) issuedOn() time.Time { return r.issuance.CompletedOn.In(r.Zone) }
