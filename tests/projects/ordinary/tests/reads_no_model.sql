select 1 as nothing where false
