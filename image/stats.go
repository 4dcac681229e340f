package image

import "context"

// Stats says what an image is made of.
type Stats struct {
	Pages       int64                // in the image
	ZeroPages   int64                // not stored
	StoredPages int64                // all others
	Frames      map[Codec]FrameStats // by how they are stored
	Packs       int
	PackBytes   int64 // of all packs, with what the image does not use of them
	IndexBytes  int64 // of root and blocks
	Blocks      int64 // of the index, but those whose pages are all zero
	Runs        int64 // in all blocks; many in few pages is fragmentation
}

// FrameStats counts frames. A frame that several index blocks name is counted for each.
type FrameStats struct {
	Count int64
	Pages int64
	Bytes int64 // stored
}

// Stats reads the whole index and counts.
func (r *Reader) Stats(ctx context.Context) (Stats, error) {
	s := Stats{
		Pages:      r.root.pages,
		Frames:     map[Codec]FrameStats{},
		Packs:      len(r.packs),
		IndexBytes: r.manifest.root.Size,
	}
	for _, p := range r.root.packs {
		s.PackBytes += p.size
	}
	for i, ref := range r.root.blocks {
		if err := ctx.Err(); err != nil {
			return Stats{}, err
		}
		if ref.length == 0 {
			continue
		}
		b, err := r.block(ctx, int64(i))
		if err != nil {
			return Stats{}, err
		}
		s.add(b)
		s.IndexBytes += int64(ref.length)
	}
	s.ZeroPages = s.Pages - s.StoredPages
	return s, nil
}

func (s *Stats) add(b *block) {
	s.Blocks++
	s.Runs += int64(len(b.runs))
	for i := range b.frames {
		f := &b.frames[i]
		c := s.Frames[codecNames[f.codec]]
		c.Count++
		c.Pages += int64(f.pages)
		c.Bytes += int64(f.stored)
		s.Frames[codecNames[f.codec]] = c
	}
	end := b.pages
	for i := len(b.runs) - 1; i >= 0; i-- {
		if b.runs[i].kind != 0 {
			s.StoredPages += int64(end - int(b.runs[i].start))
		}
		end = int(b.runs[i].start)
	}
}
