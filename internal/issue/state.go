package issue

import "time"

// Step is one outward call on the way of a certificate.
type Step string

// The steps in their order; decode stands before all of them.
const (
	StepDecode   Step = "decode"
	StepGenerate Step = "generate"
	StepRegister Step = "register"
	StepRecord   Step = "record"
	StepNotify   Step = "notify"
)

// Steps lists every step, for metrics that start at zero.
func Steps() []Step { return []Step{StepDecode, StepGenerate, StepRegister, StepRecord, StepNotify} }

// State is where an issuance stands.
type State string

// The states of an issuance. Those ending in -ing are stored before the call
// they name, so a crash leaves a trace of what may have happened.
const (
	Queued      State = "queued"
	Generating  State = "generating"
	Generated   State = "generated"
	Registering State = "registering"
	Registered  State = "registered"
	Recording   State = "recording"
	Recorded    State = "recorded"
	Notifying   State = "notifying"
	Notified    State = "notified"
	Retrying    State = "retrying"
	Failed      State = "failed"
)

// States lists every state in the order of a certificate's way.
func States() []State {
	return []State{
		Queued, Generating, Generated, Registering, Registered, Recording, Recorded, Notifying, Notified, Retrying, Failed,
	}
}

// Final says that an issuance in this state moves no more by itself.
func (s State) Final() bool { return s == Notified || s == Failed }

// Issuance is one learner's certificate under one name as the ledger has it,
// with the revision that is being worked.
type Issuance struct {
	ID          IssuanceID
	Row         int64 // the store's own name for it
	Batch       BatchID
	Learner     LearnerID
	Course      CourseID
	Certificate string // certificate name
	Job         JobID  // the job it is dispatched for
	Revision    int    // 1 = first issue
	Number      int64  // of the last dispatch
	State       State
	Step        Step // the step that State is about
	Attempts    int  // calls made of that step
	Rounds      int  // how often it has waited in Retrying for that step
	Crashes     int  // claims taken over from dead processes since the last finished step
	Replays     int  // how often it has left Failed
	Issued      bool // some revision is registered
	CompletedOn time.Time

	FirstFailure time.Time // of the step at hand; zero = it has not failed

	// Of the revision:
	Made         *Certificate // stored answer of generate; nil = not generated
	OldID        string       // the certificate this revision replaces
	RegisteredAt time.Time    // zero = not registered
	Email, SMS   ChannelState
	TraceParent  string
}

// ChannelState is how far one channel of a notification has come.
type ChannelState string

// A channel is stored as sending before its call, so that after a crash one
// knows that the message may have left.
const (
	ChannelPending ChannelState = "pending"
	ChannelSending ChannelState = "sending"
	ChannelSent    ChannelState = "sent"
	ChannelNone    ChannelState = "none" // there was nothing to send or nowhere to send it
)
