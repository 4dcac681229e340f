package handofftest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"faultline/handoff/handofftest"
	"faultline/internal/testkit"
)

// parentEnvironment makes the test binary a program that starts a client at the
// socket it names, says so, and then does nothing.
const parentEnvironment = "FAULTLINE_TEST_PARENT"

func parent() {
	path := os.Getenv(parentEnvironment)
	if path == "" {
		return
	}
	c, err := handofftest.Start(context.Background(), handofftest.Config{
		Socket: path, Regions: []handofftest.Region{{Size: 4096}},
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go c.Touch(handofftest.TouchSpec{}) // so that the client is stuck in a fault
	fmt.Println(c.PID)
	select {}
}

func TestClientDiesWithItsParent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnvironment+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, scanErr := fmt.Fscan(out, &pid)
	pidfd, err := unix.PidfdOpen(pid, 0)
	cmd.Process.Kill()
	cmd.Wait()
	if scanErr != nil || err != nil {
		t.Fatalf("client %d: %v, %v", pid, scanErr, err)
	}
	defer unix.Close(pidfd)
	testkit.Await(t, pidfd, "the client's end")
}
