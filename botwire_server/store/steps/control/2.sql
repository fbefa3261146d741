-- The revision that a namespace's file had when it was last noted: a file that is behind it has lost its
-- journal. NULL where that was not promised to be on the disk.
ALTER TABLE namespaces ADD COLUMN revision INTEGER;
