-- The namespace's id, written when the file is first opened: a file that stands in another's place is
-- known by it.
ALTER TABLE totals ADD COLUMN owner TEXT;
