// Command issuer-api accepts requests to issue the certificates of a course
// batch, turns them into jobs, and dispatches one event for each learner.
package main

import (
	"context"
	"io"
	"os"

	"github.com/ecreds/issuer/cmd/issuer-api/app"
	"github.com/ecreds/issuer/internal/program"
)

func main() { os.Exit(program.Main(context.Background(), "issuer-api", run)) }

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
