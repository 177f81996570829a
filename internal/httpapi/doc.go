// Package httpapi is the way in over HTTP: it turns a Sunbird call into an
// [issue.Request], an [issue.Acceptance] into a Sunbird answer, and shows jobs,
// health and metrics.
//
// It promises that every JSON answer stands in the platform's envelope, with
// the texts and codes the platform has always had; that no body, however
// broken, is answered by a 500 or issues more than it asks for; and that a
// request is logged in one line that holds ids, never bodies, names or tokens.
//
// It leaves the decision whether a request is accepted to the [Accepter], what
// is known about jobs to [Jobs], and listening and stopping to the caller,
// for whom [NewServer] has limits that suit. [NewAdmin] serves the part that a
// program without an API needs: health and metrics.
package httpapi
