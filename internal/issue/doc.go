// Package issue is the core of eCreds Issuer: what it means to issue the
// certificates of a course batch, without a word of HTTP, Kafka or SQL.
//
// Four parts share the work. [Accepter] turns a request into a job. [FanOut]
// pages through the eligible learners of a job and writes one issuance for
// each. [Dispatcher] publishes an event for every issuance that is due.
// [Worker] takes such an event and walks its issuance through the steps
// generate, register and notify, storing the result of each before the next
// begins, so that a repeated event resumes instead of starting again.
//
// The package promises that an issuance is worked by one claim at a time and
// that an event comes to rest only when its outcome is durable. It leaves to
// its callers how events travel, where rows are kept and how services are
// called: those are interfaces, declared here beside the code that uses them.
package issue
