// Command cert-consumer works certificate requests off Kafka: it generates,
// registers and announces one certificate for each.
package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"github.com/ecreds/issuer/cmd/cert-consumer/app"
	"github.com/ecreds/issuer/internal/program"
)

// main lets the heap grow further between two collections than Go does by
// itself: a few dozen megabytes are live here, and collecting them often costs
// more than the memory does. GOGC and GOMEMLIMIT have the last word.
func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	os.Exit(program.Main(context.Background(), "cert-consumer", run))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	config, err := app.ParseConfig(args, stdout, stderr)
	if err != nil {
		return err
	}
	a, err := app.New(ctx, config, stderr)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
