// Command cert-consumer works certificate requests off Kafka: it generates,
// registers and announces one certificate for each.
package main

import (
	"context"
	"io"
	"os"

	"github.com/ecreds/issuer/cmd/cert-consumer/app"
	"github.com/ecreds/issuer/internal/program"
)

func main() { os.Exit(program.Main(context.Background(), "cert-consumer", run)) }

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
