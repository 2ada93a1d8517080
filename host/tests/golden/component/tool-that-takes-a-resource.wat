(component
    (type $handle' (resource (rep i32)))
    (export $handle "handle" (type $handle'))
    (core module $m (func (export "f") (param i32))) (core instance $i (instantiate $m))
    (func (export "use") (param "handle" (own $handle)) (canon lift (core func $i "f"))))
