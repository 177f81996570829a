// Package sunbird is the floor on which the HTTP edges stand: one tuned
// transport, one JSON caller, the platform's answer envelope, the table that
// turns an HTTP status into a verdict, and the gate before each service.
//
// It promises that a call ends with its context or its own timeout, that every
// body is read and closed, that answers are capped, that the trace and request
// ids of the context travel along, and that an error is an [issue.Failure] whose
// message holds the service's words without the values we sent. A call whose
// caller has gone away is that caller's context error, never a failure of the
// service. It logs nothing.
//
// A gate promises that no more calls are under way at once than the service is
// found to bear, and that one which is away is only probed.
//
// It leaves to the edges what to send, what counts as success, and which words
// of a service overrule the verdict of its status.
package sunbird
