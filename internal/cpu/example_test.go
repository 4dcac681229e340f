package cpu_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"

	"faultline/internal/cpu"
)

func ExampleDo() {
	var sum [32]byte
	if err := cpu.Do(context.Background(), func() { sum = sha256.Sum256(nil) }); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%x…\n", sum[:4])
	// Output: e3b0c442…
}
