// Package parts starts, for tests, the real parts that the programs work with:
// Apache Kafka, OpenSearch (the API of Elasticsearch 7) and PostgreSQL. They
// run as ordinary processes of this machine, listen on loopback or a private
// socket only, and can be killed and started again in the middle of a test.
//
// It promises that nothing stays behind: a part ends with its test, a shared
// one with the test binary, and all of them when that binary dies of whatever
// cause. It promises too that a test which wants a part that cannot be had
// fails, and says what to install; it is never skipped.
//
// Java and PostgreSQL themselves are the machine's (`make parts` installs them).
// Jars are fetched by Maven, once, at pinned versions, into a cache folder
// outside the tree: PARTS_CACHE, or ecreds-issuer/parts in the user's cache.
//
// Tests that use it carry the build tag realparts, which `make test` sets and
// `make unit`, the inner loop, does not.
package parts
