package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"faultline/handoff/handofftest"
	"faultline/internal/testkit"
)

const guestSize = 256 << 20

// A real guest's memory is packed, served to a client that compares every page, and
// exported again.
func TestRealGuest(t *testing.T) {
	dir := t.TempDir()
	f := &fixture{store: filepath.Join(dir, "store"), memory: filepath.Join(dir, "ram"), size: guestSize}
	begin := time.Now()
	bootGuest(t, f.memory)
	t.Logf("booted a Debian kernel to its initramfs shell in %s", formatDuration(time.Since(begin)))

	begin = time.Now()
	var d description
	if err := json.Unmarshal([]byte(f.run(t, "pack", f.memory, "app", "--json")), &d); err != nil {
		t.Fatal(err)
	}
	t.Logf("packed %s in %s: %s of %d pages are zero, %s are stored, %s of what is not zero and %s of all",
		formatSize(d.Size), formatDuration(time.Since(begin)), percent(d.ZeroPages, d.Pages), d.Pages, formatSize(d.PackBytes),
		percent(d.PackBytes, d.Size-d.ZeroPages*int64(d.PageSize)), percent(d.PackBytes, d.Size))
	if d.Size != guestSize || d.ZeroPages == 0 || d.ZeroPages == d.Pages {
		t.Errorf("%+v", d)
	}

	s := f.serve(t)
	c := f.client(t, s, nil)
	r := touch(t, c, handofftest.TouchSpec{Random: true, Fraction: 0.05})
	checkAll(t, c)
	t.Logf("served it: the first page took %s, p99 of %d accesses %s; all %d pages are right",
		formatDuration(r.First), r.Count, formatDuration(r.Latency.P99), c.Pages)
	exit(t, c)
	s.stop()

	out := filepath.Join(dir, "out")
	f.run(t, "export", "app", out)
	sameFile(t, f.memory, out)
}

// bootGuest boots Debian's kernel in QEMU until its initramfs has a shell, stops it
// there, and leaves its memory in a file.
func bootGuest(t *testing.T, ram string) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	kernels, _ := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(kernels) == 0 {
		testkit.Skip(t, "qemu-system-x86_64 or a kernel in /boot is missing: install qemu-system-x86 and linux-image-cloud-amd64", false)
	}
	kernel := kernels[len(kernels)-1]
	initrd := "/boot/initrd.img-" + strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	for _, file := range []string{kernel, initrd} {
		f, err := os.Open(file)
		if err != nil {
			testkit.Skip(t, err.Error(), os.Getuid() == 0)
		}
		f.Close()
	}
	monitor := filepath.Join(t.TempDir(), "qmp")
	size := fmt.Sprintf("%dM", guestSize>>20)
	cmd := exec.Command(qemu, "-accel", "tcg", "-m", size, "-nodefaults", "-display", "none", "-no-reboot",
		"-object", "memory-backend-file,id=m,size="+size+",share=on,mem-path="+ram, "-machine", "pc,memory-backend=m",
		"-serial", "stdio", "-qmp", "unix:"+monitor+",server=on,wait=off",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 break=top")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer giveUp.Stop()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if text, err := readUntil(console, "(initramfs)"); err != nil {
		t.Fatalf("the guest has no shell: %v\n%s\n%s", err, text, stderr.String())
	}
	if err := stopGuest(monitor); err != nil {
		t.Fatal(err)
	}
}

// readUntil reads until what was read contains mark.
func readUntil(r io.Reader, mark string) (string, error) {
	var text bytes.Buffer
	chunk := make([]byte, 4096)
	for !bytes.Contains(text.Bytes(), []byte(mark)) {
		n, err := r.Read(chunk)
		text.Write(chunk[:n])
		if err != nil {
			return text.String(), err
		}
	}
	return text.String(), nil
}

// stopGuest halts the guest's processors by QEMU's monitor.
func stopGuest(monitor string) error {
	conn, err := net.Dial("unix", monitor)
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(conn)
	for _, command := range []string{"qmp_capabilities", "stop"} {
		if _, err := fmt.Fprintf(conn, `{"execute": %q, "id": %q}`+"\n", command, command); err != nil {
			return fmt.Errorf("monitor: %s: %w", command, err)
		}
		for {
			if !lines.Scan() {
				return fmt.Errorf("monitor: %s: no answer: %w", command, lines.Err())
			}
			var answer struct {
				ID     string
				Return *json.RawMessage
			}
			if json.Unmarshal(lines.Bytes(), &answer) == nil && answer.ID == command {
				if answer.Return == nil {
					return fmt.Errorf("monitor: %s: %s", command, lines.Text())
				}
				break
			}
		}
	}
	return nil
}

// sameFile fails unless two files are equal bit for bit.
func sameFile(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Fatalf("%s and %s differ", a, b)
	}
}
