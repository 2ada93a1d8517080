(component
    (core module $m (func (export "f"))) (core instance $i (instantiate $m))
    (func $f (canon lift (core func $i "f")))
    (export "send" (func $f))
    (export "send" (func $f)))
