//go:build !realparts

package stream

import "testing"

// newRealSite stands in kafka_test.go, among the tests on real parts.
var newRealSite func(testing.TB, int) *site
