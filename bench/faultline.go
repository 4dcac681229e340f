package main

import (
	"context"
	"errors"

	"faultline/handoff"
	"faultline/image"
	"faultline/pager"
	"faultline/session"
	"faultline/store"
)

// serveSession serves the client the way Faultline does, until it exits.
func (h handler) serveSession(client *handoff.Client, source pager.Source) error {
	var wrong error
	s, err := session.Start(client, session.Options{
		Source: source, BlockSize: h.BlockSize, NoPrefetch: h.NoPrefetch, Pin: h.CPU >= 0, CPU: max(h.CPU, 0),
		OnError: func(err error) { wrong = err },
	})
	if err != nil {
		return err
	}
	return errors.Join(s.Wait(), wrong)
}

// source opens the raw file or the image. It stays open for the process's life.
func (h handler) source(ctx context.Context) (pager.Source, error) {
	if h.File != "" {
		return mapFile(h.File)
	}
	layout, err := store.OpenLayout(h.Store)
	if err != nil {
		return nil, err
	}
	ref, err := store.Parse(h.Image)
	if err != nil {
		return nil, err
	}
	d, err := layout.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return image.Open(ctx, layout, d)
}
