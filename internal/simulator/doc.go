// Package simulator is a simulated Sunbird platform: real HTTP servers on loopback that answer as cert-service,
// learner-service, the content service and Elasticsearch do, and check every field as these do, so that a body which
// would be refused there is refused here, with the same status and text. It serves the local demo and the tests from
// outside; it promises fidelity where that has been seen on running services (the recordings under testdata), says
// plainly what it does not simulate, and leaves speed of drawing and signing to the real ones.
//
// # Services
//
//	cert           POST /v1/certs/generate, /private/cert/v1/certs/generate, /v1/user/certs/download;
//	               3.9.0 only: /v1/certs/verify; GET /health, /service/health. Anything else is the 404 page of its era.
//	learner        POST /private/user/v1/certs/add, …/certs/validate, …/search, /v1/org/read,
//	               /v1/notification/email and /private/user/v1/notification/email; GET /private/user/v1/read/{id}, /health.
//	content        GET /content/v3/read/{id}?fields=, with or without /learning-service before it.
//	elasticsearch  7.10: indexes user-courses (_search, _count, _doc, _update) and course-batch (_search, _count, _doc).
//	files          template archives, certificates (/certs/….pdf, ….json), and the control below.
//
// Nothing is idempotent that is not so in reality: each generate makes another certificate, each accepted notification
// is sent again, and certs/add knows no key but the certificate's id.
//
// # Eras
//
// Config.Era chooses between cert-service 1.0.0 (platform 2.3.5) and 3.9.0. They differ in the mandatory fields
// (orgId and tag; criteria), the name of the issue date, the form of addresses (relative to the container; absolute),
// the texts of failures, and in what a bad template does: 1.0.0 answers 500, while 3.9.0 never answers for an address
// that is refused or hangs, and meanwhile answers nobody else either. Config.LearnerEra25 makes certs/add honour oldId.
//
// # Faults
//
// A Fault says what goes wrong, for which calls, how often. Latency passes before the work is done and whether or not
// the caller still waits, as it does in a real service; LoseReply and AfterWork do the work and report otherwise;
// Outage of a whole service really stops accepting. Faults of the same call add up; of those that decide the outcome
// the first set wins. The control routes never fail.
//
// # Looking
//
// Calls is the log, in order of arrival: an entry is there before the work begins and has Status 0 until an answer
// was written. Registered are the rows of certs/add, Outbox the accepted notifications. The files server has the same
// for people and for tests from outside:
//
//	GET    /                      what there is, on one page
//	GET    /simulator/calls       ?service=&operation=&userId=&batchId=&limit= (newest 1,000); DELETE empties
//	GET    /simulator/counts      {"generate":{"200":12,"0":1}}
//	GET    /simulator/registered  ?userId=&batchId=&limit=&jsonData=1
//	GET    /simulator/outbox      ?userId=&limit=
//	GET    /simulator/faults      POST adds one ({"service":"cert","operation":"generate","latency":"250ms"}), DELETE ends all
//
// Operations are generate, certs_add, certs_validate, user_search, user_read, org_read, email, sms, content_read,
// es_search, es_get, es_count, es_update, es_info, es_index, download, verify, template, health, options, unknown.
// download is both the signing of an address and the download itself.
//
// # Data
//
// Load takes a Dataset; DemoDataset is a deterministic one. With Config.DataDir, certificates, rows, messages, signing
// keys and what was written to enrolments are kept in one append-only file of JSON lines and are back after a restart;
// the data set is not kept and is loaded again.
//
// Certificates are drawn as PDF when somebody downloads one, with names shaped properly in Latin, Devanagari, Gujarati
// and Tamil; letters of other scripts show as empty boxes. Signatures are RSA-PSS over the canonical form, as
// enc-service makes them, with keys 2 to 9 of 1,024 bits, made at their first use.
package simulator
