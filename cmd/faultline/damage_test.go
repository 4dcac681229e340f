package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// damage flips a bit of, cuts or removes the file of a part of the only image in a
// store. An offset below zero counts from the file's end.
func damage(dir, part, how string, offset int64) error {
	path, err := partPath(dir, part)
	if err != nil {
		return err
	}
	if how == "remove" {
		return os.Remove(path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if offset < 0 {
		offset += info.Size()
	}
	switch how {
	case "truncate":
		return os.Truncate(path, offset)
	case "flip":
		return flip(path, offset)
	}
	return fmt.Errorf("unknown damage %q", how)
}

func flip(path string, offset int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		return err
	}
	b[0] ^= 0x10
	_, err = f.WriteAt(b, offset)
	return err
}

// partPath finds the file of "names", "manifest", "config", "root", "pack" or "attachment".
func partPath(dir, part string) (string, error) {
	names := filepath.Join(dir, "index.json")
	if part == "names" {
		return names, nil
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := readJSON(names, &index); err != nil {
		return "", err
	}
	blob := func(digest string) string {
		return filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
	}
	path := blob(index.Manifests[0].Digest)
	if part == "manifest" {
		return path, nil
	}
	type descriptor struct{ MediaType, Digest string }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := readJSON(path, &manifest); err != nil {
		return "", err
	}
	if part == "config" {
		return blob(manifest.Config.Digest), nil
	}
	kind := map[string]string{"root": ".index.", "pack": ".pack.", "attachment": ".blob."}[part]
	for _, d := range manifest.Layers {
		if kind != "" && strings.Contains(d.MediaType, kind) {
			return blob(d.Digest), nil
		}
	}
	return "", fmt.Errorf("the image has no %q", part)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// lookup finds what is at a path in JSON text, written as Go prints it.
func lookup(text, path string) (string, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return "", fmt.Errorf("%w in %s", err, text)
	}
	for _, step := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(at) {
				return "", fmt.Errorf("no %s of %s in %s", step, path, text)
			}
			v = at[i]
		default:
			return "", fmt.Errorf("no %s of %s in %s", step, path, text)
		}
	}
	return fmt.Sprint(v), nil
}
