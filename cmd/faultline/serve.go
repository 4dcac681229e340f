package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"faultline/handoff/firecracker"
	"faultline/internal/server"
	"faultline/session"
)

// serveFlags are serve's own.
type serveFlags struct {
	firecracker string
	noPrefetch  bool
	once        bool
	grace       time.Duration
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve REF --firecracker SOCKET",
		Short: "Fill the memory of Firecracker VMs from an image, as they touch it",
		Long: `Listen at SOCKET as the page-fault handler of Firecracker VMs that are restored with
"mem_backend": {"backend_type": "Uffd", "backend_path": "SOCKET"}. Any number of VMs
can be served at once. SIGINT, SIGTERM or SIGHUP: accept no more, fill those that run,
leave them to themselves and exit. A second signal kills the VMs that are not complete.`,
		Example: `  faultline serve app:v1 --firecracker /run/faultline/app.sock
  faultline serve app:v1 --firecracker app.sock --once --json`,
		Args:              arguments("REF"),
		ValidArgsFunction: a.completeRef,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.firecracker == "" {
				return usage(cmd, errors.New("--firecracker SOCKET is missing"))
			}
			return a.serve(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.firecracker, "firecracker", "", "listen at `SOCKET` for Firecracker 1.1 and later")
	flags.BoolVar(&f.noPrefetch, "no-prefetch", false, "fill only what is touched")
	flags.BoolVar(&f.once, "once", false, "end after the first VM")
	flags.DurationVar(&f.grace, "grace", time.Minute, "at the end, kill VMs that are not filled then; 0: never")
	return cmd
}

// serve serves an image until the user has had enough.
func (a *app) serve(ctx context.Context, arg string, f serveFlags) (err error) {
	// Whoever reads our output may go; our clients live on.
	signal.Ignore(syscall.SIGPIPE)
	kill, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.signals.atSecond(cancel)

	opened, err := a.open(ctx, arg)
	if err != nil {
		return err
	}
	defer opened.Close() // when every session has ended
	log := newEventLog(a, opened)
	defer log.close()
	l, err := firecracker.Listen(f.firecracker, firecracker.Options{Refused: log.refused})
	if errors.Is(err, firecracker.ErrBadPath) {
		return usageError(err)
	}
	if err != nil {
		return err
	}
	log.listening(l.Addr())
	err = server.Run(ctx, kill, server.Options{
		Source: opened, Listener: l, NoPrefetch: f.noPrefetch, Once: f.once, Grace: f.grace, Notify: log.notify,
	})
	if errors.Is(err, session.ErrKilled) {
		return fmt.Errorf("not all clients could be kept: %w", err)
	}
	return err
}
