package crash

// The settings of a program that is to die.
const (
	// At names a point and how often it is passed before the program dies there:
	// "after register:17".
	At = "CRASH_AT"
	// OnLearner is the learner before whose generate the program dies, each time.
	OnLearner = "CRASH_ON_LEARNER"
)

// What cert-consumer does outwards. A write to a claimed issuance goes by the
// state that it stores.
const (
	claim            = "claim"
	generate         = "generate"
	register         = "register"
	email            = "email"
	sms              = "sms"
	deadLetter       = "dead letter"
	writeGenerating  = "write generating"
	writeRegistering = "write registering"
	writeNotifying   = "write notifying"
	writeNotified    = "write notified"
	writeRetrying    = "write retrying"
	writeFailed      = "write failed"
	writeRelease     = "write release"
	writeDoubt       = "write template failed"
	writeAdopted     = "write adopted"
	writePoison      = "write poison"
)

// What issuer-api does outwards.
const (
	createJob  = "create job"
	addPage    = "add page"
	takeDue    = "take due"
	publish    = "publish"
	dispatched = "dispatched"
	recall     = "recall"
)

// ConsumerPoints lists every point of cert-consumer.
func ConsumerPoints() []string {
	return around(
		claim, generate, register, email, sms, deadLetter, writeGenerating, writeRegistering, writeNotifying, writeNotified,
		writeRetrying, writeFailed, writeRelease, writeDoubt, writeAdopted, writePoison,
	)
}

// APIPoints lists every point of issuer-api.
func APIPoints() []string { return around(createJob, addPage, takeDue, publish, dispatched, recall) }

// around gives the points of some deeds.
func around(deeds ...string) []string {
	points := make([]string, 0, 2*len(deeds))
	for _, deed := range deeds {
		points = append(points, before+deed, after+deed)
	}
	return points
}

const (
	before = "before "
	after  = "after "
)
