//go:build realparts

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
)

// report prints what the deaths on each ledger have cost.
func report(tb testing.TB, tolls map[string]toll, names []string) {
	tb.Helper()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\trounds\tkills\tlost\tdoubled\trepeats: generate\tof in flight\tcerts/add\tnotification\t")
	for _, name := range names {
		t := tolls[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, t.Rounds, t.Kills, t.Lost, t.Doubled,
			t.Generates, t.InFlight, t.Registers, t.Notifications)
	}
	_ = w.Flush() // a strings.Builder takes everything
	tb.Logf("what the deaths cost:\n%s", &table)
}
