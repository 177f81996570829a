// Package e2e tests the whole way of a certificate: issuer-api, an embedded
// Kafka broker, cert-consumer and the simulated platform, started by the same
// code that the programs' own mains use, spoken to over HTTP alone. What must
// be true is read from the simulated platform's call log: what really happened
// to learners, not what the service believes. Tests tagged realparts put an
// Apache Kafka and an OpenSearch in the place of the embedded and simulated ones.
package e2e
